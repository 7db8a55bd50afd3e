"""How fast tables reach Redis, and how much memory they take, beside two other ways.

* text: one SET of a text for each entity, pipelined with redis-py, 1000 in a round trip. Once with
  making the text, once with texts that are ready-made.
* raw: a stream of SETs of packed values, encoded beforehand, with a second thread that reads the
  replies: the limit of one connection.
* ferry: what staging does, from Arrow rows; by one process over one connection.
* ferry, verified: what staging does with one part, from the Parquet file: read, pack, sum up,
  write, read back, compare, look up a sample.

Repetitions of all ways are interleaved; figures are medians.
"""

from __future__ import annotations

import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import redis
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.setting import PREFIX, UNIT, Sample, lists, machine, own_redis, save, texts, vectors
from pipelines.online.buckets import pack_buckets, whole_buckets
from pipelines.online.bulk import command
from pipelines.online.store import OnlineStore
from pipelines.release.part_writer import PartWriter

TEXT, READY, RAW = "text SETs", "text SETs, ready-made", "raw stream of SETs"
FERRY, VERIFIED = "ferry", "ferry, verified"
_PIPELINE = 1000
_VERSION = 202611240001


class Bench:
    """The ways of writing one table, each a function that returns when Redis has all of it."""

    def __init__(self, url: str, sample: Sample, folder: Path) -> None:
        self.url, self.sample = url, sample
        self.redis = redis.Redis.from_url(url)
        self.online = OnlineStore(url, PREFIX)
        self.path = folder / f"{sample.meta.name}.parquet"
        pq.write_table(pa.Table.from_batches([sample.rows]), self.path)
        self.ids = sample.rows.column("id").to_pylist()
        self.values = sample.rows.column("value").to_pylist()
        self.texts = [_text(value) for value in self.values]
        self.stream = b"".join(
            command(b"SET", f"{PREFIX}:{UNIT}:".encode() + entity_id, value).data
            for bucket in pack_buckets(sample.rows, sample.meta)
            for entity_id, value in zip(bucket.ids, bucket.values, strict=True)
        )

    def ways(self) -> dict[str, Callable[[], None]]:
        """Return the ways by name."""
        return {
            TEXT: lambda: self._set_texts(map(_text, self.values)),
            READY: lambda: self._set_texts(self.texts),
            RAW: self._send_stream,
            FERRY: self._write,
            VERIFIED: self._write_and_verify,
        }

    def _set_texts(self, values: Any) -> None:
        pipeline = self.redis.pipeline(transaction=False)
        for entity_id, text in zip(self.ids, values, strict=True):
            pipeline.set(f"{PREFIX}:{UNIT}:{entity_id}", text)
            if len(pipeline) >= _PIPELINE:
                pipeline.execute()
        pipeline.execute()

    def _send_stream(self) -> None:
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            connection.sendall(command(b"AUTH", (parts.password or "").encode()).data)
            connection.recv(100)
            reader = threading.Thread(target=_read_replies, args=(connection, len(self.ids)))
            reader.start()
            connection.sendall(self.stream)
            reader.join()

    def _write(self) -> None:
        for batch in whole_buckets(self.sample.batches()):
            self.online.write_batch(UNIT, _VERSION, self.sample.meta, batch)

    def _write_and_verify(self) -> None:
        writer = PartWriter(self.url, PREFIX, None, "", None, UNIT, _VERSION, False)
        report = writer.write_file(self.online, self.sample.meta, self.path)
        if report.total.hex != self.sample.meta.checksum:
            raise RuntimeError(f"checksum {report.total.hex}, not {self.sample.meta.checksum}")

    def measure(self, way: Callable[[], None]) -> tuple[float, float]:
        """Return (entities/s, bytes of memory for each) of one way on an emptied Redis."""
        self.redis.flushall()
        before = self._used()
        started = time.perf_counter()
        way()
        seconds = time.perf_counter() - started
        entities = self.sample.meta.rows
        return entities / seconds, (self._used() - before) / entities

    def _used(self) -> int:
        found = self.redis.info("memory")
        passing = ("mem_clients_normal", "mem_aof_buffer")
        return int(found["used_memory"]) - sum(int(found.get(name, 0)) for name in passing)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ",".join(map(str, value))


def _read_replies(connection: socket.socket, count: int) -> None:
    while count > 0:
        count -= connection.recv(1 << 16).count(b"\n")


def main(entities: int = 100_000, repetitions: int = 7) -> None:
    """Measure, print and save."""
    samples = [lists(entities), vectors(entities, 32), vectors(entities, 128), texts(entities)]
    figures: dict[str, Any] = {
        "machine": machine(),
        "hiredis": bool(redis.utils.HIREDIS_AVAILABLE),
        "entities": entities,
        "repetitions": repetitions,
        "tables": {},
    }
    with own_redis() as url, tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        figures["redis"] = redis.Redis.from_url(url).info("server")["redis_version"]
        for sample in samples:
            figures["tables"][sample.meta.name] = _measure(
                Bench(url, sample, Path(folder)), repetitions
            )
    Console().print(_table(figures))
    save("publish", figures, _markdown(figures))


def _measure(bench: Bench, repetitions: int) -> dict[str, Any]:
    ways = bench.ways()
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            runs[name].append(bench.measure(way))
    meta = bench.sample.meta
    found = {
        name: {
            "entities_per_second": round(statistics.median(rate for rate, _ in measured)),
            "slowest": round(min(rate for rate, _ in measured)),
            "fastest": round(max(rate for rate, _ in measured)),
            "bytes_per_entity": round(statistics.median(size for _, size in measured), 1),
        }
        for name, measured in runs.items()
    }
    rate = {name: figure["entities_per_second"] for name, figure in found.items()}
    value = (meta.payload_bytes - sum(map(len, bench.ids))) / meta.rows
    return {
        "value_bytes": round(value, 1),
        "ways": found,
        "ferry_over_text": round(rate[FERRY] / rate[TEXT], 2),
        "ferry_over_raw": round(rate[FERRY] / rate[RAW], 2),
        "memory_over_value": round(found[FERRY]["bytes_per_entity"] / value, 3),
    }


def _rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"{name} ({table['value_bytes']:.0f} bytes)",
            way,
            f"{found['entities_per_second']:,}",
            f"{found['entities_per_second'] / table['ways'][TEXT]['entities_per_second']:.1f}×",
            f"{found['entities_per_second'] / table['ways'][RAW]['entities_per_second']:.2f}×",
            f"{found['bytes_per_entity']:.0f}",
        )
        for name, table in figures["tables"].items()
        for way, found in table["ways"].items()
    ]


_HEAD = ("table (value)", "way", "entities/s", "of text", "of raw", "bytes/entity")


def _table(figures: dict[str, Any]) -> Table:
    table = Table(*_HEAD, title=f"{figures['machine']}; Redis {figures['redis']}")
    for row in _rows(figures):
        table.add_row(*row)
    return table


def _markdown(figures: dict[str, Any]) -> str:
    lines = [_HEAD, ("---", "---", *["---:"] * 4), *_rows(figures)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    typer.run(main)
