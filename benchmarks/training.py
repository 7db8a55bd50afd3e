"""How fast the Keras rankers train from Parquet, against the same rows in memory.

Samples are written as the feature job would, with random content: what is trained does not matter,
how many rows pass through does. For each model, passes over the same rows take turns: from disk, as
a build trains, and from rows that are in memory already, without shuffling. The
shared one-time work, learning vocabularies and encoding, is timed apart. Last, one model is
evaluated over all rows in a process of its own, whose peak of memory is measured.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.setting import machine, save
from pipelines.features.schema import (
    GENRES,
    NUMBERS,
    USER_HISTORY,
    USER_RECENT_ITEMS,
)
from pipelines.models_config import RANKERS, READ_HISTORY, ModelsConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_ROWS_PER_FILE = 1_000_000
_HISTORY = 30
_GENRE_NAMES = [f"genre {i}" for i in range(19)]
_ALL = ("interest_ranker", *RANKERS)


def write_samples(folder: Path, rows: int, users: int, items: int) -> None:
    """Write `rows` samples with the feature job's columns, a million a file."""
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, rows, _ROWS_PER_FILE)):
        size = min(_ROWS_PER_FILE, rows - start)
        rng = np.random.default_rng(number)
        table = _samples(rng, size, users, items)
        pq.write_table(table, folder / f"part-{number:05d}.parquet", row_group_size=131_072)


def _samples(rng: np.random.Generator, size: int, users: int, items: int) -> pa.Table:
    def popular(count: int) -> Any:
        return (items * rng.random(count) ** 3).astype(np.int64) * 10**9

    lengths = rng.integers(0, _HISTORY + 1, size)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    user = np.sort(rng.integers(0, users, size)) * 7
    mark = rng.random(size)
    names = pa.array(_GENRE_NAMES)
    columns: dict[str, Any] = {
        "user_id": user,
        "item_id": popular(size),
        "rating": rng.integers(1, 11, size) / 2,
        "label": (rng.random(size) < 0.6).astype(np.float64),
        "is_holdout": mark < 0.05,
        "is_validation": (mark >= 0.05) & (mark < 0.1),
        **{name: popular(size) for name in USER_RECENT_ITEMS},
        **{name: names.take(pa.array(rng.integers(0, 19, size))) for name in GENRES},
        **{name: rng.integers(0, 5000, size) / 10 for name in NUMBERS},
        USER_HISTORY: pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(popular(int(offsets[-1])))
        ),
    }
    return pa.table(columns)


def _trainer(unit: str, samples: Path, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    import importlib

    from pipelines.models.rankers.encoded import Shape
    from pipelines.models.rankers.samples import Samples
    from pipelines.models.rankers.training import Trainer

    reads_list = unit == "interest_ranker" or unit in READ_HISTORY
    module = "interests" if unit == "interest_ranker" else unit
    return Trainer(
        network=importlib.import_module(f"pipelines.models.rankers.{module}").network,
        config=getattr(ModelsConfig(), unit),
        samples=Samples(str(samples)),
        shape=Shape.of(_HISTORY if reads_list else None),
        seed=1,
        folder=folder,
        name=unit,
    )


def measure(unit: str, samples: Path, folder: Path, repetitions: int) -> dict[str, float]:
    """Return medians: rows a second from disk, from memory, and of the encoding."""
    trainer = _trainer(unit, samples, folder)
    started = time.perf_counter()
    statistics = trainer.learn(None)
    with trainer.encoded(None, statistics) as encoded:
        encode_seconds = time.perf_counter() - started
        trainer.loop.take(trainer.untrained(statistics))
        figures = _take_turns(trainer.loop, encoded, repetitions)
    return {**figures, "encoded_rows_per_second": encoded.rows / encode_seconds}


class _InMemory:
    """Encoded rows that are read already, in one order."""

    def __init__(self, encoded: Any) -> None:
        self._rows = np.concatenate(list(encoded.parts(encoded.rows)))

    def parts(self, size: int, *_order: int) -> Iterator[Any]:
        for start in range(0, len(self._rows), size):
            yield self._rows[start : start + size]


def _take_turns(loop: Any, encoded: Any, repetitions: int) -> dict[str, float]:
    ways = {"disk": encoded, "memory": _InMemory(encoded)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repetition in range(repetitions + 1):
        for way, rows in ways.items():
            started = time.perf_counter()
            for _ in loop.train(rows, 1, repetition):
                pass
            # The first pass traces the graph.
            if repetition:
                seconds[way].append(time.perf_counter() - started)
    # Taken in pairs: what else the machine does hits both halves of one alike.
    pairs = zip(seconds["memory"], seconds["disk"], strict=True)
    return {
        "disk_rows_per_second": encoded.rows / median(seconds["disk"]),
        "memory_rows_per_second": encoded.rows / median(seconds["memory"]),
        "share": median(memory / disk for memory, disk in pairs),
    }


def evaluate(unit: str, samples: Path) -> None:
    """Choose the passes and train, as a build does before it measures; prints the peak in bytes."""
    from pipelines.models.rankers.samples import TRAINING

    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        trainer = _trainer(unit, samples, Path(folder))
        started = time.perf_counter()
        trainer.fit(TRAINING, 1, "to evaluate")
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    typer.echo(f"{seconds:.1f} {peak}")


def main(
    rows: int = 20_000_000,
    compared_rows: int = 1_000_000,
    repetitions: int = 3,
    users: int = 140_000,
    items: int = 27_000,
    memory_of: str = "din",
    unit: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    evaluate_unit: Annotated[str | None, typer.Option(hidden=True)] = None,
    samples: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure, print a table, and write it to the results."""
    if evaluate_unit and samples:
        evaluate(evaluate_unit, samples)
        return
    result: dict[str, Any] = {"machine": machine(), "rows": rows, "compared_rows": compared_rows}
    work = Path(tempfile.mkdtemp(prefix="ferry-bench-"))
    try:
        write_samples(work / "few", compared_rows, users, items)
        result["models"] = {
            name: measure(name, work / "few", work / name, repetitions) for name in unit or _ALL
        }
        if rows:
            write_samples(work / "many", rows, users, items)
            command = [sys.executable, "-m", "benchmarks.training"]
            command += ["--evaluate-unit", memory_of, "--samples", str(work / "many")]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, peak = output.split()[-2:]
            result["evaluation"] = {
                "unit": memory_of,
                "rows": rows,
                "seconds": float(seconds),
                "peak_bytes": int(peak),
            }
    finally:
        shutil.rmtree(work)
    save("training", result, _markdown(result))
    typer.echo(_markdown(result))


def _markdown(result: dict[str, Any]) -> str:
    lines = [
        "| model | from disk, rows/s | in memory, rows/s | share | encoding, rows/s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, figures in result["models"].items():
        disk, memory, encoded = (
            f"{figures[f'{key}_rows_per_second']:,.0f}" for key in ("disk", "memory", "encoded")
        )
        lines.append(f"| {name} | {disk} | {memory} | {figures['share']:.2f} | {encoded} |")
    if found := result.get("evaluation"):
        lines.append(
            f"\n{found['unit']}, learned, encoded and trained for one pass from "
            f"{found['rows']:,} rows: {found['seconds']:.0f} s, peak of memory "
            f"{found['peak_bytes'] / 1e9:.2f} GB"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
