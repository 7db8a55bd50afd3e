"""What the benchmarks share: a Redis of their own, tables, the machine, and where figures go."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow as pa

from local import commands, health
from local.home import HOST
from pipelines.models.base import TableKind
from pipelines.online.buckets import pack_buckets, sum_buckets
from pipelines.online.layout import TableMeta, bucket_count, bucket_of
from pipelines.online.pointer import Pointer
from pipelines.online.store import OnlineStore

RESULTS = Path(__file__).parent / "results"
PREFIX = "bench"
UNIT = "recs"
_PASSWORD = "benchmark"  # noqa: S105 - of a server on loopback that lives as long as the benchmark
_BATCH_ROWS = 4096


@contextmanager
def own_redis() -> Iterator[str]:
    """Start the embedded Redis with its usual configuration; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        (port,) = health.free_ports(1)
        command = commands.redis_command(Path(folder), port, _PASSWORD, maxmemory="4gb")
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command.argv, stdout=log, stderr=log)
        try:
            if not health.wait_until(lambda: health.redis_answers(port, _PASSWORD), 20.0):
                raise RuntimeError(f"redis did not start: {(Path(folder) / 'log').read_text()}")
            url = f"redis://:{_PASSWORD}@{HOST}:{port}/0"
            online = OnlineStore(url, PREFIX)
            # A rewrite of the append-only file would fall into one measurement and not into others.
            online._redis.config_set("auto-aof-rewrite-percentage", 0)
            online.close()
            yield url
        finally:
            process.terminate()
            process.wait(20)


def point_at(online: OnlineStore, version: int) -> None:
    """Make a version live, as far as readers of Redis can tell."""
    pointer = Pointer(version=version, epoch=1, since=datetime.now(UTC))
    with online.leases.hold(online.pointers.key(UNIT), "benchmark") as lease:
        online.pointers.move(UNIT, lease, seen_epoch=0, epoch=1, target=pointer)


def home_environment(root: Path) -> dict[str, str]:
    """Return the variables of a home of its own, on free ports."""
    names = ("AIRFLOW", "REDIS", "S3", "TF_GRPC", "TF_REST")
    ports = zip(names, health.free_ports(len(names)), strict=True)
    return {"FERRY_HOME": str(root), **{f"FERRY_{name}_PORT": str(port) for name, port in ports}}


class Sample(NamedTuple):
    """A table as a build leaves it: its description and its rows, sorted by bucket and id."""

    meta: TableMeta
    rows: pa.RecordBatch

    def batches(self) -> list[pa.RecordBatch]:
        """Return the rows in batches as they are read from a part."""
        return [
            self.rows.slice(start, _BATCH_ROWS) for start in range(0, self.meta.rows, _BATCH_ROWS)
        ]


def lists(entities: int, bucket_size: int = 32) -> Sample:
    """Return lists of 50 int64 items: a payload of 400 bytes each."""
    items = np.random.default_rng(1).integers(1, 10**8, (entities, 50))
    return _sample("lists", "ids", pa.array(list(items), pa.list_(pa.int64())), bucket_size)


def vectors(entities: int, dimension: int, bucket_size: int = 32) -> Sample:
    """Return vectors that are stored as float16."""
    values = np.random.default_rng(2).normal(size=(entities, dimension)).astype(np.float32)
    column = pa.array(list(values), pa.list_(pa.float32()))
    return _sample(f"vectors_{dimension}", "vector", column, bucket_size, dimension)


def texts(entities: int, bucket_size: int = 32) -> Sample:
    """Return texts as the feature tables have them: JSON arrays of about 80 characters."""
    values = np.random.default_rng(3).normal(size=(entities, 4)).round(12)
    column = pa.array([json.dumps(row.tolist()) for row in values])
    return _sample("texts", "text", column, bucket_size)


def _sample(
    name: str, kind: TableKind, values: pa.Array, bucket_size: int, dimension: int = 0
) -> Sample:
    ids = [str(10_000_000 + number) for number in range(len(values))]
    buckets = bucket_count(len(ids), bucket_size)
    numbers = [bucket_of(entity_id, buckets) for entity_id in ids]
    order = pa.array(np.lexsort((ids, numbers)))
    columns = [pa.array(numbers, pa.int32()), pa.array(ids), values]
    rows = pa.RecordBatch.from_arrays(
        [column.take(order) for column in columns], ["bucket", "id", "value"]
    )
    meta = TableMeta(name=name, kind=kind, buckets=buckets, rows=len(ids), dimension=dimension)
    total = sum_buckets(pack_buckets(rows, meta))
    sums = {"payload_bytes": total.payload_bytes, "longest": total.longest, "checksum": total.hex}
    return Sample(meta.model_copy(update=sums), rows)


def machine() -> str:
    """Describe this machine in one line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {memory:.0f} GB, Python {platform.python_version()}"


def save(name: str, figures: dict[str, Any], table: str) -> None:
    """Write figures as JSON and a table as Markdown below ``benchmarks/results``."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(table, encoding="utf-8")
    print(f"written: benchmarks/results/{name}.json, {name}.md")
