"""Where a version's parts are written from: Spark's executors, or processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Protocol

from pipelines.errors import ServiceError, find_in_text
from pipelines.release.part_writer import Part, PartReport

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Work = Callable[[Part], PartReport]

_POLL_SECONDS = 0.5


class Runner(Protocol):
    """Runs `work` once for each part, several at a time, in other processes."""

    def run(
        self, work: Work, parts: Sequence[Part], advance: Callable[[int], object]
    ) -> list[PartReport]:
        """Return the reports, in any order; `advance` learns how many rows are newly written.

        Raises:
            FerryError: what `work` raised for one of the parts.
        """
        ...


class SparkRunner:
    """Writes from the executors, one part a task."""

    def __init__(self, spark: SparkSession) -> None:
        self._context = spark.sparkContext

    def run(
        self, work: Work, parts: Sequence[Part], advance: Callable[[int], object]
    ) -> list[PartReport]:
        """Return the reports; progress comes through an accumulator."""
        written = self._context.accumulator(0)

        def task(part: Part) -> PartReport:
            report = work(part)
            written.add(report.total.rows)
            return report

        tasks = self._context.parallelize(parts, max(1, len(parts))).map(task)
        seen = 0
        with ThreadPoolExecutor(max_workers=1) as pool:
            job = pool.submit(tasks.collect)
            while not job.done():
                wait([job], timeout=_POLL_SECONDS)
                advance(written.value - seen)
                seen = written.value
        try:
            return list(job.result())
        except Exception as error:
            if ours := find_in_text(str(error)):
                raise ours from error
            raise


class LocalRunner:
    """Writes from processes of this machine, without a JVM: to restore and to roll back."""

    def __init__(self, workers: int | None = None) -> None:
        """Use at most `workers` processes; by default one for each processor."""
        self._workers = workers or len(os.sched_getaffinity(0))

    def run(
        self, work: Work, parts: Sequence[Part], advance: Callable[[int], object]
    ) -> list[PartReport]:
        """Return the reports; a single worker is this process itself."""
        workers = min(self._workers, len(parts))
        results = map(work, parts) if workers <= 1 else _in_processes(work, parts, workers)
        reports = []
        for report in results:
            advance(report.total.rows)
            reports.append(report)
        return reports


def _in_processes(work: Work, parts: Sequence[Part], workers: int) -> Iterator[PartReport]:
    # "spawn": a fork would carry the locks and connections of this process's threads along.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures: list[Future[PartReport]] = [pool.submit(work, part) for part in parts]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise ServiceError(
                "a process that wrote a part to Redis ended unexpectedly (killed, or no memory?)"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
