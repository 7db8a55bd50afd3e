"""What one day more costs: features that go on from the day before, beside those of all days.

A lake of synthetic events is written as ingest leaves it. Then the features of the day before the
last are computed and kept, those of the last day from there, and those of all days without anything
kept; each in a process of its own, as the tasks of a run are. Processor time is that of the whole
tree of processes (Python, Java, Spark's Python workers), without the start of Spark; the outcomes
are compared, row by row.

    .venv/bin/python -m benchmarks.incremental --users 180000 --items 30000
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, NamedTuple

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import typer

from benchmarks.setting import machine, save
from pipelines.capacity import driver_memory
from pipelines.config import PROJECT_ROOT, load_pipeline_config
from pipelines.data.contract import DataSummary
from pipelines.data.synthetic import DEFAULT_SEED, generate
from pipelines.lake import Lake
from pipelines.spark import driver_java_options, size_shuffles, spark_session

_LAST_DAY = date(2026, 6, 30)
_FOLDERS = ("samples", "events", "user_features", "item_features")


class Cost(NamedTuple):
    """What a computation took, in seconds."""

    name: str
    wall: float
    processor: float


def main(
    users: Annotated[int, typer.Option(help="Users, each with about 100 events.")] = 20_000,
    items: Annotated[int, typer.Option(help="Items.")] = 8_000,
    days: Annotated[int, typer.Option(help="Days.")] = 180,
) -> None:
    """Measure, compare, and write the figures to ``benchmarks/results/``."""
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        lake = Lake(folder)
        _write_lake(lake, users, items, days)
        before = _LAST_DAY - timedelta(days=1)
        costs = [
            _measured("all days but the last, kept", lake, before, 1, keep=True),
            _measured("the last day on top", lake, _LAST_DAY, 2, keep=True),
            _measured("all days", lake, _LAST_DAY, 3, keep=False),
        ]
        _require_same(lake, 2, 3)
        summary = DataSummary.load(lake.run(3).data_summary)
    table = _markdown(costs, summary, days)
    save("incremental", {"machine": machine(), "costs": [c._asdict() for c in costs]}, table)
    typer.echo(table)


def _write_lake(lake: Lake, users: int, items: int, days: int) -> None:
    generate(lake, users, items, days, DEFAULT_SEED, _LAST_DAY)
    for file in sorted(Path(lake.landing, "ratings").glob("*.csv")):
        rows = pa_csv.read_csv(file).rename_columns(["user_id", "item_id", "rating", "timestamp"])
        seconds = pc.cast(rows["timestamp"], pa.timestamp("s", "UTC"))
        rows = rows.set_column(3, "timestamp", pc.cast(seconds, pa.timestamp("us", "UTC")))
        rows = rows.set_column(2, "rating", pc.cast(rows["rating"], pa.float64()))
        order = [(name, "ascending") for name in ("user_id", "timestamp", "item_id", "rating")]
        day = Path(lake.ratings, f"dt={file.stem}")
        day.mkdir(parents=True)
        pq.write_table(rows.sort_by(order), day / "part-0.parquet")
        file.unlink()
    read = pa_csv.read_csv(Path(lake.landing, "items", "items.csv"))
    columns = [read[0], read[1], pc.split_pattern(read[2], "|"), pc.cast(read[3], pa.int32())]
    Path(lake.items).mkdir()
    names = ["item_id", "title", "genres", "release_year"]
    pq.write_table(pa.table(columns, names=names), Path(lake.items, "part-0.parquet"))


def _measured(name: str, lake: Lake, day: date, version: int, *, keep: bool) -> Cost:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_compute, args=(lake.root, day, version, keep, sender))
    process.start()
    # Without it here, a process that dies ends the wait.
    sender.close()
    try:
        wall, processor = receiver.recv()
    finally:
        process.join()
    return Cost(name, wall, processor)


def _compute(root: str, day: date, version: int, keep: bool, sender: Connection) -> None:
    from pipelines.features.samples import build_features

    config = load_pipeline_config(PROJECT_ROOT / "pipeline.yaml")
    features = config.features.model_copy(update={"incremental_from": 0})
    config = config.model_copy(update={"features": features})
    conf = {
        "spark.driver.memory": driver_memory(config.operations.heavy_tasks),
        "spark.driver.extraJavaOptions": driver_java_options(),
    }
    lake = Lake(root)
    with spark_session("benchmark", "local[*]", **conf) as spark:
        size_shuffles(spark, lake.ratings)
        began, processor = time.monotonic(), _processor_seconds()
        build_features(spark, config, lake, lake.run(version), day, keep=keep)
        took = time.monotonic() - began, _processor_seconds() - processor
    sender.send(took)


def _processor_seconds() -> float:
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        # Children that have ended count with whoever waited for them.
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _require_same(lake: Lake, one: int, other: int) -> None:
    for name in _FOLDERS:
        for slice_one, slice_other in zip(
            _slices(f"{lake.run(one).root}/{name}"),
            _slices(f"{lake.run(other).root}/{name}"),
            strict=True,
        ):
            # By column: a column without a null may or may not say so in its schema.
            if slice_one.schema.names != slice_other.schema.names or not all(
                map(pa.ChunkedArray.equals, slice_one.columns, slice_other.columns)
            ):
                raise RuntimeError(f"{name} of the last day on top are not those of all days")


def _slices(folder: str) -> Iterator[pa.Table]:
    """Yield all rows, sorted, in slices that fit into memory."""
    rows = ds.dataset(folder, format="parquet")
    key = rows.schema.names[0]
    keys = ["user_id", "timestamp", "item_id", "rating"]
    order = [(name, "ascending") for name in keys if name in rows.schema.names] or [
        (key, "ascending")
    ]
    bounds = range(0, 1 + pc.max(rows.to_table([key])[key]).as_py(), 20_000)
    for start in bounds:
        chosen = (ds.field(key) >= start) & (ds.field(key) < start + 20_000)
        yield rows.to_table(filter=chosen).sort_by(order).combine_chunks()


def _markdown(costs: list[Cost], data: DataSummary, days: int) -> str:
    _, top, full = costs
    lines = [
        f"{machine()}; {data.rows:,} events of {data.users:,} users and {data.items:,} items on "
        f"{days} days",
        "",
        "| features of | processor, s | wall, s |",
        "| --- | ---: | ---: |",
        *(f"| {c.name} | {c.processor:.0f} | {c.wall:.0f} |" for c in costs),
        "",
        f"One day more takes {top.processor / full.processor:.1%} of the processor time of all "
        f"days, and {top.wall / full.wall:.1%} of the time. Both outcomes are the same, row by "
        "row.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
