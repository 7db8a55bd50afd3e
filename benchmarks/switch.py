"""How long a switch, a rollback and a restore take, on real services of the benchmark's own.

One Redis, one S3 server over a folder and two model servers. `lists`: a unit of one table of 50
int64 items a user. `ranker`: a unit with such a table and a SavedModel on both replicas. A switch
and a rollback are timed whole, as the task and the command make them: reading the manifest, golden
answers before the move and, for a switch, after it, labels and history included.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.setting import PREFIX, Sample, lists, machine, own_redis, save
from local import commands, health
from local.home import HOST, REGION
from pipelines.config import PROJECT_ROOT, ReleaseConfig, Settings
from pipelines.models.base import Built, ScoredRequest
from pipelines.online.ranking_inputs import INPUTS, TEXT_INPUTS, is_user_input
from pipelines.release.activate import activate
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.manifest import GoldenTable, Manifest
from pipelines.release.publish import publish
from pipelines.release.restore import restore
from pipelines.release.rollback import roll_back
from pipelines.release.runners import LocalRunner
from pipelines.release.stage_model import bring_model, load_model
from pipelines.release.stage_tables import stage_tables
from pipelines.release.tables import PreparedTables
from pipelines.run import RunPlan, make_version

_DAY = date(2026, 11, 24)
_BUCKET = "benchmark"
_KEY, _SECRET = "benchmark-key", "benchmark-secret-key"
_GOLDEN = 32
_UNITS = {"lists": "recs", "ranker": "embedding_mlp"}


@contextmanager
def own_services() -> Iterator[Settings]:
    """Start the services; yields the settings that name them."""
    with ExitStack() as stack:
        url = stack.enter_context(own_redis())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ferry-bench-")))
        (folder / "buckets" / _BUCKET).mkdir(parents=True)
        (folder / "models").mkdir()
        s3_port, *ports = health.free_ports(5)
        _start(stack, commands.s3_command(folder / "buckets", s3_port, _KEY, _SECRET))
        pairs = [(ports[0], ports[1]), (ports[2], ports[3])]
        for grpc, rest in pairs:
            config = folder / "models" / "models.config"
            _start(stack, commands.model_server_command(config, grpc, rest))
        os.environ.update(
            AWS_ACCESS_KEY_ID=_KEY, AWS_SECRET_ACCESS_KEY=_SECRET, AWS_DEFAULT_REGION=REGION
        )
        is_up = health.wait_until(lambda: health.s3_answers(s3_port), 30.0) and all(
            health.wait_until(lambda p=pair: health.model_server_answers(*p), 60.0)  # type: ignore[misc]
            for pair in pairs
        )
        if not is_up:
            raise RuntimeError("the services did not start")
        yield Settings.model_validate(
            {
                "FERRY_LAKE": str(folder / "lake"),
                "redis_url": url,
                "redis_prefix": PREFIX,
                "s3_endpoint_url": f"http://{HOST}:{s3_port}",
                "bucket": _BUCKET,
                "tf_serving": ",".join(f"{HOST}:{grpc}:{rest}" for grpc, rest in pairs),
                "model_dir": folder / "models",
            }
        )


def _start(stack: ExitStack, command: commands.Command) -> None:
    process = subprocess.Popen(
        command.argv,
        env={**os.environ, **command.env},
        cwd=PROJECT_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)


def export_model(folder: Path, rows: list[dict[str, Any]]) -> list[float]:
    """Write a SavedModel with Ferry's signature; returns its own scores of `rows`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    from pipelines.models.rankers.export import Served, add_warmup, tensors

    class Numbers(Served):
        """A small network over the numbers alone."""

        names = INPUTS

        def __init__(self) -> None:
            super().__init__()
            self.hidden = keras.layers.Dense(64, "relu")
            self.score = keras.layers.Dense(1, "sigmoid")

        def shape_of(self, name: str) -> tuple[int | None, ...]:
            return ()

        def call(self, raw: dict[str, Any]) -> Any:
            numbers = [raw[name] for name in self.names if name not in TEXT_INPUTS]
            return tf.squeeze(self.score(self.hidden(tf.stack(numbers, axis=1))), -1)

        def rank(self, raw: dict[str, Any]) -> Any:
            count = tf.size(raw["item_id"])
            return self(
                {
                    name: tf.repeat(column, count) if is_user_input(name) else column
                    for name, column in raw.items()
                }
            )

    model = Numbers()
    model.write(folder)
    add_warmup(folder, _UNITS["ranker"], rows, INPUTS)
    return [float(value) for value in model(tensors(rows, INPUTS))]


def build(
    context: ReleaseContext, folder: Path, unit: str, attempt: int, sample: Sample
) -> Manifest:
    """Seal, stage and verify one version."""
    work = folder / f"{unit}-{attempt}"
    (work / sample.meta.name).mkdir(parents=True)
    pq.write_table(pa.Table.from_batches([sample.rows]), work / sample.meta.name / "part-0.parquet")
    head = sample.rows.slice(0, _GOLDEN)
    golden = dict(zip(head["id"].to_pylist(), head["value"].to_pylist(), strict=True))
    prepared = PreparedTables(work, [sample.meta], [GoldenTable(table="lists", rows=golden)])
    built = Built(metrics={}, params={})
    if unit == _UNITS["ranker"]:
        rows: list[dict[str, Any]] = [
            {name: "7" if name in TEXT_INPUTS else float(n) for name in INPUTS}
            for n in range(_GOLDEN)
        ]
        scores = export_model(work / "saved_model", rows)
        built.files["saved_model"] = work / "saved_model"
        built.golden.extend(
            ScoredRequest(inputs=row, score=score) for row, score in zip(rows, scores, strict=True)
        )
    version = make_version(_DAY, attempt)
    plan = RunPlan.model_validate(
        {"run_date": _DAY, "version": version, "run_type": "manual", "run_id": f"{attempt}",
         "units": (unit,)}
    )  # fmt: skip
    manifest = publish(context.registry, plan, unit, built, [prepared], {}, work)
    stage_tables(context, manifest, LocalRunner(1))
    if manifest.has_model:
        bring_model(context, manifest)
        load_model(context, manifest)
    return manifest


def timed(action: Callable[[], object]) -> float:
    """Return the milliseconds that `action` takes."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def measure(
    context: ReleaseContext, folder: Path, unit: str, sample: Sample, repetitions: int
) -> dict[str, list[float]]:
    """Return the milliseconds of each kind of move."""
    found: dict[str, list[float]] = {
        name: []
        for name in ("switch", "rollback", "rollback, staged again", "restore of an emptied Redis")
    }
    first = build(context, folder, unit, 1, sample)
    activate(context, first)
    for attempt in range(2, repetitions + 2):
        manifest = build(context, folder, unit, attempt, sample)
        found["switch"].append(timed(lambda m=manifest: activate(context, m)))  # type: ignore[misc]
        found["rollback"].append(
            timed(lambda: roll_back(context, unit, None, "benchmark", LocalRunner(1)))
        )
        roll_back(context, unit, manifest.version, "benchmark", LocalRunner(1))
        previous = context.online.pointers.get(unit)
        if previous and previous.previous:
            context.online.unlink_tables(unit, previous.previous)
        found["rollback, staged again"].append(
            timed(lambda: roll_back(context, unit, None, "benchmark", LocalRunner(1)))
        )
        roll_back(context, unit, manifest.version, "benchmark", LocalRunner(1))
        context.online._redis.flushall()
        found["restore of an emptied Redis"].append(
            timed(lambda: restore(context, unit, LocalRunner(1)))
        )
    return found


def main(entities: int = 100_000, repetitions: int = 5) -> None:
    """Measure, print and save."""
    sample = lists(entities)
    found: dict[str, dict[str, list[float]]] = {}
    with (
        own_services() as settings,
        tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder,
        release_context(settings, ReleaseConfig(), "benchmark") as context,
    ):
        for name, unit in _UNITS.items():
            found[name] = measure(context, Path(folder), unit, sample, repetitions)
    figures: dict[str, Any] = {
        "machine": machine(),
        "entities": entities,
        "repetitions": repetitions,
        "milliseconds": {
            unit: {
                kind: {"median": round(median(values)), "worst": round(max(values))}
                for kind, values in kinds.items()
            }
            for unit, kinds in found.items()
        },
    }
    table = Table("unit", "move", "median", "worst", title=figures["machine"])
    lines = ["| unit | move | median | worst |", "| --- | --- | ---: | ---: |"]
    for unit, kinds in figures["milliseconds"].items():
        for kind, values in kinds.items():
            cells = (unit, kind, f"{values['median']:,} ms", f"{values['worst']:,} ms")
            table.add_row(*cells)
            lines.append("| " + " | ".join(cells) + " |")
    Console().print(table)
    save("switch", figures, "\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
