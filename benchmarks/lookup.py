"""How long a reader waits for one user's list: in a quiet Redis, and while a version is written.

A reader is a process of its own with one connection. Each lookup takes the pointer, then the list
from that version. The writer publishes another version over one connection as fast as it goes, and
unlinks it, again and again. Phases alternate; each figure is over all lookups of its phases.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import redis
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.setting import PREFIX, UNIT, Sample, lists, machine, own_redis, point_at, save
from pipelines.online.buckets import whole_buckets
from pipelines.online.layout import TableMeta
from pipelines.online.store import OnlineStore

_LIVE, _NEXT = 202611240001, 202611250001
_PERCENTILES = (50, 99, 99.9)


def look_up(url: str, meta: TableMeta, users: list[str], seconds: float) -> list[float]:
    """Look up users one after another; returns how long each took, in milliseconds."""
    online = OnlineStore(url, PREFIX)
    chance = random.Random(7)
    waits = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        user = chance.choice(users)
        pointer = online.pointers.get(UNIT)
        if not pointer or user not in online.read(UNIT, pointer.version, meta, [user]):
            raise RuntimeError(f"user {user} has no list")
        waits.append((time.perf_counter() - started) * 1000)
    online.close()
    return waits


class Publisher:
    """Writes a version again and again, in a thread, while the block runs."""

    def __init__(self, online: OnlineStore, sample: Sample) -> None:
        self.online, self.sample = online, sample
        self.rows, self.seconds = 0, 0.0
        self._stop = threading.Event()

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.perf_counter()
            for batch in whole_buckets(self.sample.batches()):
                self.rows += self.online.write_batch(UNIT, _NEXT, self.sample.meta, batch)
                if self._stop.is_set():
                    break
            self.seconds += time.perf_counter() - started
            self.online.unlink_tables(UNIT, _NEXT, [self.sample.meta])

    def __enter__(self) -> Publisher:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._stop.clear()


def main(entities: int = 100_000, seconds: float = 5.0, phases: int = 3) -> None:
    """Measure, print and save."""
    sample = lists(entities)
    users = sample.rows.column("id").to_pylist()
    waits: dict[str, list[float]] = {"quiet": [], "during a publish": []}
    with own_redis() as url:
        online = OnlineStore(url, PREFIX)
        for batch in whole_buckets(sample.batches()):
            online.write_batch(UNIT, _LIVE, sample.meta, batch)
        point_at(online, _LIVE)
        publisher = Publisher(online, sample)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as reader:
            reader.submit(look_up, url, sample.meta, users, 0.5).result()
            for _ in range(phases):
                quiet = reader.submit(look_up, url, sample.meta, users, seconds)
                waits["quiet"] += quiet.result()
                with publisher:
                    busy = reader.submit(look_up, url, sample.meta, users, seconds)
                    waits["during a publish"] += busy.result()
        version = redis.Redis.from_url(url).info("server")["redis_version"]
    figures: dict[str, Any] = {
        "machine": machine(),
        "redis": version,
        "hiredis": bool(redis.utils.HIREDIS_AVAILABLE),
        "entities": entities,
        "published_per_second": round(publisher.rows / publisher.seconds),
        "milliseconds": {name: _summary(measured) for name, measured in waits.items()},
    }
    Console().print(_table(figures))
    save("lookup", figures, _markdown(figures))


def _summary(waits: list[float]) -> dict[str, float]:
    percentiles = np.percentile(waits, _PERCENTILES)
    found = {f"p{p}": round(float(v), 3) for p, v in zip(_PERCENTILES, percentiles, strict=True)}
    return {**found, "max": round(max(waits), 3), "lookups": len(waits)}


def _rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{v:,}" if k == "lookups" else f"{v:.2f} ms" for k, v in found.items()))
        for name, found in figures["milliseconds"].items()
    ]


_HEAD = ("one user's list", *(f"p{p}" for p in _PERCENTILES), "max", "lookups")


def _table(figures: dict[str, Any]) -> Table:
    rate = figures["published_per_second"]
    table = Table(*_HEAD, title=f"{figures['machine']}; publishing {rate:,} entities/s meanwhile")
    for row in _rows(figures):
        table.add_row(*row)
    return table


def _markdown(figures: dict[str, Any]) -> str:
    lines = [_HEAD, ("---", *["---:"] * 5), *_rows(figures)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    typer.run(main)
