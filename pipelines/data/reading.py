"""Reading a source: which rows of it go into the lake, and which days they replace or add to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import DataConfig
from pipelines.data.contract import DAY, EVENT_COLUMNS, Reason, event_schema
from pipelines.data.day_files import files_by_day
from pipelines.data.day_records import DayRecord, LeftOut, SourceFile
from pipelines.data.days import read_days
from pipelines.data.files import SparkFiles
from pipelines.data.scope import Scope
from pipelines.data.source import read_source
from pipelines.data.tally import HASH, SCOPE, Tally, tally_rows
from pipelines.data.validate import validate
from pipelines.data.values import day_of
from pipelines.errors import DataError, NoDataError
from pipelines.lake import Lake

log = logging.getLogger(__name__)

_FILE_DAY = "file_day"


@dataclass(frozen=True)
class Reading:
    """Rows that were read, and what is to be done with them.

    `rows` (cached) are the validated rows with ``scope``: those that are ``input`` have all their
    columns. `replaced` are the days whose rows take the place of what the lake holds; rows of
    other days are added to it. `unchanged` days were looked at, and stay; so does a day that is
    `cut_off`, of which a history that begins with it has lost a part.
    """

    rows: DataFrame
    tally: Tally
    replaced: frozenset[date]
    unchanged: frozenset[date]
    cut_off: frozenset[date]
    #: By day, what is known now of the files that were read for it.
    files: Mapping[date, frozenset[SourceFile]]
    #: Records of days that are not read, with what is new of them.
    others: Mapping[date, DayRecord]
    #: By day, rows of files for each day that came too late.
    too_late: Mapping[date, int] = field(default_factory=dict)
    unreadable: dict[date, str] = field(default_factory=dict)

    def counted_too_late(self, left_out: Mapping[date, int]) -> int:
        """Return how many of the earlier rows are left out for being late."""
        return sum(rows for day, rows in left_out.items() if day in self.tally.digests)


@contextmanager
def reading(
    spark: SparkSession, config: DataConfig, lake: Lake, scope: Scope, now: datetime
) -> Iterator[Reading]:
    """Read what `scope` asks for; its rows are cached while the block runs.

    Raises:
        NoDataError: the run date has no files of its own.
        DataError: the source is not there, or a column is missing.
    """
    if config.events.is_daily:
        read = _read_days(spark, config, lake, scope, now)
    else:
        read = _read_history(spark, config, lake, scope)
    try:
        yield read
    finally:
        read.rows.unpersist()


def _read_history(spark: SparkSession, config: DataConfig, lake: Lake, scope: Scope) -> Reading:
    """Read a source with the whole history, once; look at the rows of all days."""
    path = config.events.resolve(lake, scope.run_date.isoformat())
    validated = validate(
        read_source(spark, config.events, path, EVENT_COLUMNS), config, scope.run_date
    )
    hashed = sf.xxhash64(*EVENT_COLUMNS, "reason", "raw")
    # What has no time of its own is counted with whatever day it is read on: it is no change.
    rows = validated.withColumn(HASH, sf.when(sf.col("timestamp").isNotNull(), hashed))
    scoped = _with_scope(spark, rows, scope).persist()
    tally = tally_rows(scoped)
    first = min(tally.dated, default=scope.run_date)
    is_cut_off = scope.is_cut_off(first, tally.dated.get(first, 0))
    cut_off = frozenset([first] if is_cut_off else ())
    looked_at = {*tally.valid, *(day for day, _ in tally.bad)}
    unchanged = frozenset(
        day for day in looked_at - cut_off if not scope.is_changed(day, tally.digests.get(day, ""))
    )
    late = {
        day: digest
        for day, digest in tally.digests.items()
        if day in scope.lake.held and day not in looked_at | cut_off and day <= scope.run_date
    }
    tally = tally.without(unchanged | cut_off)

    def count_late(days: Collection[date]) -> dict[date, int]:
        return _count_late(spark, config, lake, validated, days)

    return Reading(
        rows=scoped,
        tally=tally,
        replaced=frozenset({*tally.valid, *(day for day, _ in tally.bad)}),
        unchanged=unchanged,
        cut_off=cut_off,
        files=tally.files,
        others=_records_of_others(scope, late, count_late),
    )


def _read_days(
    spark: SparkSession, config: DataConfig, lake: Lake, scope: Scope, now: datetime
) -> Reading:
    """Read the files of the run date, and of the days before it that are new or have changed."""
    files = SparkFiles(spark)
    listed = files_by_day(files, config.events, lake)
    if scope.only is None and scope.run_date not in listed:
        path = config.events.resolve(lake, scope.run_date.isoformat())
        if not files.matches(path):
            raise NoDataError(f"{path}: no such file or folder")
    complete = {d: f for d, f in listed.items() if config.calendar.is_complete(d, now)}
    replaced = set(scope.file_days(listed))
    frames: dict[date, DataFrame] = {}
    unreadable: dict[date, str] = {}
    for day in sorted(replaced | scope.carriers(replaced, complete)):
        path = config.events.resolve(lake, day.isoformat())
        try:
            rows = read_source(spark, config.events, path, EVENT_COLUMNS)
        except DataError as error:
            if day == scope.run_date or scope.only is not None:
                raise
            # A day of the past must not keep the run date from being built.
            log.warning("%s is not read again: %s", day, error)
            unreadable[day] = str(error)
            continue
        frames[day] = validate(rows, config, day).withColumn(_FILE_DAY, sf.lit(day))
    # Nor must a day lose rows that stand in a file that can't be read now.
    affected = {d for d in replaced if scope.carriers({d}, listed) & unreadable.keys()}
    replaced -= unreadable.keys() | (affected & scope.lake.held - {scope.run_date})
    if not frames:
        raise NoDataError(
            f"{config.events.path}: no file of {', '.join(map(str, scope.only or ()))}"
        )
    rows = reduce(DataFrame.unionByName, frames.values())
    is_own = sf.col(_FILE_DAY).isin(sorted(replaced))
    is_late = sf.col("reason").isNull() & sf.col(DAY).isin(sorted(replaced))
    scoped = (
        rows.withColumn(HASH, sf.lit(None).cast("bigint"))
        .withColumn(SCOPE, sf.when(is_own | is_late, "input").otherwise("earlier"))
        .persist()
    )
    tally = tally_rows(scoped)
    too_late: dict[date, int] = {}
    if Reason.TOO_LATE in tally.quarantined():
        own_day = day_of(sf.col("timestamp"), config.time_zone)
        of_late = scoped.where((sf.col("reason") == Reason.TOO_LATE.value) & is_own)
        too_late = {row[0]: row[1] for row in of_late.groupBy(own_day).count().collect()}

    def count_late(days: Collection[date]) -> dict[date, int]:
        paths = [config.events.resolve(lake, day.isoformat()) for day in days]
        sources = [read_source(spark, config.events, path, EVENT_COLUMNS) for path in paths]
        read = [validate(s, config, day) for s, day in zip(sources, days, strict=True)]
        return _count_late(spark, config, lake, reduce(DataFrame.unionByName, read), days)

    return Reading(
        rows=scoped,
        tally=tally,
        replaced=frozenset(replaced),
        unchanged=frozenset(),
        cut_off=frozenset(),
        files={
            day: tally.files.get(day, frozenset())
            | (listed.get(day, frozenset()) if day in replaced else frozenset())
            for day in replaced | tally.valid.keys()
        },
        others=_records_of_others(scope, scope.changed_too_late(listed), count_late),
        too_late=too_late,
        unreadable=unreadable,
    )


def _records_of_others(
    scope: Scope,
    seen: Mapping[date, str],
    count_late: Callable[[Collection[date]], Mapping[date, int]],
) -> dict[date, DayRecord]:
    """Return the records of days that are not read, with the rows that came too late for them.

    `seen` says what the source looks like now for such days; they are counted once for each look.
    """
    others = dict(scope.lake.records)
    if scope.only is not None:
        return others
    new = {}
    for day, look in seen.items():
        record = others[day]
        if record.digest is None and not record.files:
            # Of an earlier Ferry: what the source has of it now is what it had.
            others[day] = record.model_copy(update={"digest": look})
        elif record.digest == look:
            others[day] = record.model_copy(update={"left_out": None})
        elif record.left_out is None or record.left_out.seen != look:
            new[day] = look
    if new:
        rows = count_late(sorted(new))
        for day, look in new.items():
            left_out = LeftOut(rows=rows.get(day, 0), seen=look)
            others[day] = others[day].model_copy(update={"left_out": left_out})
    return others


def _count_late(
    spark: SparkSession,
    config: DataConfig,
    lake: Lake,
    validated: DataFrame,
    days: Collection[date],
) -> dict[date, int]:
    """Return by day how many valid rows the lake does not hold."""
    is_of_days = sf.col(DAY).isin(sorted(days))
    new = (
        validated.where(is_of_days & sf.col("reason").isNull())
        .select(DAY, *EVENT_COLUMNS)
        .distinct()
    )
    held = read_days(spark, lake.ratings, event_schema(config)).where(is_of_days)
    late = new.join(held, [DAY, *EVENT_COLUMNS], "left_anti")
    return {row[0]: row[1] for row in late.groupBy(DAY).count().collect()}


def _with_scope(spark: SparkSession, rows: DataFrame, scope: Scope) -> DataFrame:
    """Say of each row whether it is input, earlier or later; empty those that are no input.

    (The latter are only counted, and the frame is kept while the days are written.)
    """
    if scope.only is None:
        kept = [day for day in scope.lake.held if not scope.is_read_from_history(day)]
        is_other = sf.col("_named").isNotNull()
    else:
        kept = list(scope.only)
        is_other = sf.col("_named").isNull() | sf.col(HASH).isNull()
    named = spark.createDataFrame([(day, True) for day in kept], f"{DAY} date, _named boolean")
    where = (
        sf.when(sf.col(DAY) > sf.lit(scope.run_date), "later")
        .when(is_other, "earlier")
        .otherwise("input")
    )
    scoped = rows.join(sf.broadcast(named), DAY, "left").withColumn(SCOPE, where)
    is_input = sf.col(SCOPE) == "input"
    contents = [name for name in rows.columns if name not in (DAY, "reason", HASH)]
    return scoped.select(
        SCOPE,
        DAY,
        "reason",
        HASH,
        *(sf.when(is_input, sf.col(name)).alias(name) for name in contents),
    )
