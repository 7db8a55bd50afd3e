"""The days that the lake holds, and which of them can be trusted.

The days of one write are replaced one after the other. A crash in between leaves whole days, old
or new, and maybe one that the next write has to put back. So the days of a write are noted in
``ratings/_unfinished/`` before it starts and struck out when it is done: a day that is still noted
is written again by the next ingest that can, and no features are computed from it meanwhile.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from math import ceil

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.types import DateType, StructField, StructType

from pipelines.data.contract import DAY
from pipelines.data.day_parts import STAGING, clear_staging, put_in_place, write_parts
from pipelines.data.files import SparkFiles, local_folder

#: A day with more rows gets several files.
ROWS_PER_FILE = 2_000_000
#: What one task writes at least; with less, more tasks would only cost more.
_ROWS_PER_TASK = 50_000


def lake_id(files: SparkFiles, table: str) -> str:
    """Return the name of the lake that `table` is in; one that begins anew gets another."""
    path = f"{table}/_lake_id"
    if not files.matches(path):
        files.write_lines(path, [uuid.uuid4().hex])
    return files.read_lines(path)[0]


def held_days(files: SparkFiles, table: str) -> set[date]:
    """Return the days for which `table` has a partition."""
    prefix = f"{DAY}="
    names = [n.removeprefix(prefix) for n in files.names(table) if n.startswith(prefix)]
    return {date.fromisoformat(name) for name in names}


def read_days(spark: SparkSession, table: str, schema: StructType) -> DataFrame:
    """Return the rows of all days of `table`, with the partition column."""
    return spark.read.schema(StructType([*schema, StructField(DAY, DateType())])).parquet(table)


def delete_day(files: SparkFiles, table: str, day: date) -> None:
    """Remove one partition."""
    files.delete(f"{table}/{DAY}={day.isoformat()}")


def write_days(
    frame: DataFrame,
    table: str,
    rows_by_day: Mapping[date, int],
    sort_by: Sequence[str],
    last: Callable[[DataFrame], DataFrame] = lambda frame: frame,
) -> None:
    """Replace the partitions of `table` for the days in `frame`, and no others. One at a time.

    Each day gets one file, a large one several; `rows_by_day` says how large they are, roughly.
    Rows are sorted inside of a file. `last` is applied to the rows on their way into the files.
    """
    large = {d: ceil(n / ROWS_PER_FILE) for d, n in rows_by_day.items() if n > ROWS_PER_FILE}
    rows = sum(rows_by_day.values())
    slots = max(frame.sparkSession.sparkContext.defaultParallelism, ceil(rows / ROWS_PER_FILE))
    tasks = max(1, min(slots, ceil(rows / _ROWS_PER_TASK)))
    spread = [sf.col(DAY)]
    if large:
        files = frame.sparkSession.createDataFrame(list(large.items()), f"{DAY} date, files int")
        share = sf.pmod(sf.xxhash64(*sort_by), sf.coalesce("files", sf.lit(1)))
        frame = frame.join(sf.broadcast(files), DAY, "left").withColumn("share", share)
        spread.append(sf.col("share"))
    placed = frame.repartition(tasks, *spread).drop("files", "share")
    ordered = last(placed).sortWithinPartitions(DAY, *sort_by)
    folder = local_folder(table)
    clear_staging(folder)
    staging = folder / f"{STAGING}{uuid.uuid4().hex}"
    put_in_place(write_parts(ordered, staging), folder, staging)


class UnfinishedDays:
    """The days whose last write may be incomplete: the union of all notes.

    A note is never changed: a new one is written before the old ones are deleted, so a crash
    at any point leaves too many days noted, not too few.
    """

    def __init__(self, files: SparkFiles, ratings: str) -> None:
        self._files = files
        self._ratings = ratings
        self._folder = f"{ratings}/_unfinished"

    def days(self) -> set[date]:
        """Return the days that are noted."""
        lines: set[str] = set()
        for name in self._files.names(self._folder):
            lines.update(self._files.read_lines(f"{self._folder}/{name}"))
        return {date.fromisoformat(line) for line in lines}

    def start(self, days: Iterable[date]) -> None:
        """Note `days` before they are written, and clear what a crashed write left."""
        self._note(self.days() | set(days))
        clear_staging(local_folder(self._ratings))

    def finish(self, days: Iterable[date]) -> None:
        """Strike out `days`: they are whole."""
        self._note(self.days() - set(days))

    def _note(self, days: set[date]) -> None:
        old = self._files.names(self._folder)
        if days:
            note = f"{self._folder}/{uuid.uuid4().hex}"
            self._files.write_lines(note, sorted(day.isoformat() for day in days))
        for name in old:
            self._files.delete(f"{self._folder}/{name}")
