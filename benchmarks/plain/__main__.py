"""Makes a run, or takes a finished one, does the same plainly, and says where the rest goes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from benchmarks.overhead import whole_run
from benchmarks.plain.clock import Clock, Part
from benchmarks.plain.data import Data, Holdout
from benchmarks.plain.lists import recommend
from benchmarks.plain.rankers import keras_part, trees
from benchmarks.plain.samples import features
from benchmarks.plain.vectors import embed
from benchmarks.setting import machine, save
from pipelines.config import PROJECT_ROOT, PipelineConfig, load_pipeline_config
from pipelines.lake import RunPaths
from pipelines.work_time import WorkTime, work_times

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_LIMIT = 2.5


def run_plainly(paths: RunPaths, config: PipelineConfig) -> list[Part]:
    """Do all five models over what the run handed over; returns the parts in their order."""
    clock = Clock()
    threshold = config.data.positive_rating
    with clock.part("reading"):
        data = Data.read(paths, threshold)
        holdout = Holdout.of(data)
    recommend(data, holdout, config, clock)
    embed(data, holdout, config, clock)
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        samples = Path(folder) / "samples"
        with clock.part("features"):
            samples.mkdir()
            table = features(data, threshold, config.features.history_length)
            pq.write_table(table, samples / "part-00000.parquet")
        trees(table, config, clock)
        with clock.part("import of TensorFlow"):
            import pipelines.models.rankers.unit  # noqa: F401
        for name in ("interest_ranker", "embedding_mlp"):
            keras_part(name, samples, config, Path(folder) / name, clock)
    return clock.parts


#: The script's parts beside the run's steps that do the same, and more.
_SAME: dict[str, Callable[[str], bool]] = {
    "ingest": lambda part: part == "reading",
    "features": lambda part: part == "features",
    "build recs": lambda part: part in ("ALS", "EASE", "blend", "lists for all"),
    "build embeddings": lambda part: part.startswith("item2vec"),
    "build ctr_pmml": lambda part: part.startswith("trees"),
    "build interest_ranker": lambda part: part == "interest_ranker",
    "build embedding_mlp": lambda part: part == "embedding_mlp",
}


def where(works: list[WorkTime], parts: list[Part]) -> list[str]:
    """Return a table: the run's steps, the script's seconds for the same, and Java's share."""
    lines = [
        "| step | run, s | script, s | Java: starting | compiling | garbage |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for work in works:
        seconds = (work.ended - work.began).total_seconds()
        same = _SAME.get(work.step)
        script = f"{sum(p.seconds for p in parts if same(p.name)):.1f}" if same else ""
        java = work.java
        spent = (java.starting, java.compiling, java.collecting) if java else ()
        cells = [f"{value:.1f}" for value in spent] or ["", "", ""]
        lines.append(f"| {work.step} | {seconds:.1f} | {script} | {' | '.join(cells)} |")
    return lines


def main(
    data: Annotated[
        Path | None, typer.Option(help="A MovieLens folder, or synthetic data.")
    ] = None,
    run_date: str = "2018-09-24",
    run: Annotated[
        Path | None, typer.Option(help="The hand-over folder of a finished run: none is made.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="What that run took; by default from its first step on.")
    ] = 0.0,
) -> None:
    """Measure, print and save."""
    if run:
        _report(RunPaths(str(run)), seconds)
    else:
        with whole_run(data, run_date) as made:
            _report(made.paths, made.wall)


def _report(paths: RunPaths, wall: float) -> None:
    works = work_times(paths)
    wall = wall or (max(w.ended for w in works) - works[0].began).total_seconds()
    parts = run_plainly(paths, load_pipeline_config(PROJECT_ROOT / "pipeline.yaml"))
    total = sum(part.seconds for part in parts)
    lines = [
        machine(),
        "",
        "| part | seconds | of processor time | quality |",
        "| --- | ---: | ---: | --- |",
        *(f"| {p.name} | {p.seconds:.1f} | {p.processor:.1f} | {p.quality} |" for p in parts),
        f"| all | {total:.1f} | {sum(part.processor for part in parts):.1f} | |",
        "",
        f"The run took {wall:.0f} s: {wall / total:.1f} times as long (at most {_LIMIT} wanted).",
        "Steps run beside each other.",
        "",
        *where(works, parts),
    ]
    table = "\n".join(lines) + "\n"
    print(table)
    figures = {"parts": [part._asdict() for part in parts], "run": wall, "ratio": wall / total}
    save("plain", {"machine": machine(), **figures}, table)


if __name__ == "__main__":
    typer.run(main)
