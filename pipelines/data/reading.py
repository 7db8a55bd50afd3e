"""Reading a source: which rows of it go into the lake, and which days they replace or add to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import reduce

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import DataConfig
from pipelines.data.contract import DAY, EVENT_COLUMNS, Reason, event_schema
from pipelines.data.day_files import DayFiles
from pipelines.data.day_records import DayRecord, LeftOut, SourceFile, plain_path
from pipelines.data.days import read_days
from pipelines.data.files import SparkFiles
from pipelines.data.scope import FilesByDay, Scope
from pipelines.data.source import first_line, read_source
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
    other days are added to it. `added_to` are days that were read of which the source has lost a
    part. `unchanged` days were looked at, and stay.
    """

    run_date: date
    rows: DataFrame
    tally: Tally
    replaced: frozenset[date]
    added_to: frozenset[date]
    unchanged: frozenset[date]
    #: By day, what is known now of the files that were read for it.
    files: Mapping[date, frozenset[SourceFile]]
    #: Records of days that are not read, with what is new of them.
    others: Mapping[date, DayRecord]
    #: By day, rows of files for each day that came too late.
    too_late: Mapping[date, int] = field(default_factory=dict)
    unreadable: dict[date, str] = field(default_factory=dict)

    def counted_too_late(self, left_out: Mapping[date, int]) -> int:
        """Return how many of the earlier rows are left out for being late."""
        known = self.tally.digests.keys()
        return sum(n for day, n in left_out.items() if day in known and day <= self.run_date)


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
        read = _read_history(spark, config, lake, scope, now)
    try:
        yield read
    finally:
        read.rows.unpersist()


def _read_history(
    spark: SparkSession, config: DataConfig, lake: Lake, scope: Scope, now: datetime
) -> Reading:
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
    looked_at = {*tally.valid, *(day for day, _ in tally.bad)}
    unchanged = frozenset(
        day for day in looked_at if not scope.is_changed(day, tally.digests.get(day, ""))
    )
    rows_of = {day: tally.dated.get(day, 0) for day in looked_at - unchanged}
    paths = {plain_path(file.path) for file in SparkFiles(spark).list_source(path)}
    cut_off = scope.cut_off(rows_of, paths, min(tally.dated, default=scope.run_date))
    # Of a day of an earlier Ferry no digest is known: what the source has of it now is what it had.
    known = scope.lake.records
    late = {
        day: digest
        for day, digest in tally.digests.items()
        if day in scope.lake.held
        and day not in looked_at
        and day <= scope.run_date
        and known[day].digest
    }
    tally = tally.without(unchanged)

    def count_late(days: Collection[date]) -> dict[date, int]:
        return _count_late(spark, config, lake, validated, days)

    return Reading(
        run_date=scope.run_date,
        rows=scoped,
        tally=tally,
        replaced=frozenset(rows_of) - cut_off,
        added_to=cut_off,
        unchanged=unchanged,
        files=tally.files,
        others=_records_of_others(scope, late, count_late, now),
    )


def _read_days(
    spark: SparkSession, config: DataConfig, lake: Lake, scope: Scope, now: datetime
) -> Reading:
    """Read the files of the run date, and of the days before it that are new or have changed."""
    files = SparkFiles(spark)
    day_files = DayFiles(config.events, lake)
    listed = day_files.list(files)
    unreadable: dict[date, str] = {}
    if scope.only is None and scope.run_date not in listed:
        path = config.events.resolve(lake, scope.run_date.isoformat())
        if not files.matches(path):
            raise NoDataError(f"{path}: no such file or folder")
        unreadable[scope.run_date] = (
            f"days before it are not looked for: no day is recognised in {config.events.path}"
        )
    complete = {d: f for d, f in listed.items() if config.calendar.is_complete(d, now)}
    wanted = set(scope.file_days(listed))
    days = wanted | scope.carriers(wanted, complete)
    frames: dict[date, DataFrame] = {}
    for day in sorted(days):
        try:
            frames[day] = _read_day(spark, config, lake, day)
        except DataError as error:
            if day == scope.run_date or scope.only is not None:
                raise
            unreadable[day] = str(error)
    while True:
        if not frames:
            asked = ", ".join(map(str, sorted(scope.only or ())))
            raise NoDataError(f"{config.events.path}: no file of {asked}")
        lost = unreadable.keys() - {scope.run_date}
        read = wanted - lost
        scoped = _with_target(frames, read).persist()
        try:
            tally = tally_rows(scoped)
            break
        except (PySparkException, Py4JJavaError) as error:
            scoped.unpersist()
            # A day of the past must not keep the run date from being built.
            broken = _broken(frames, scope.run_date)
            if not broken:
                path = config.events.resolve(lake, scope.run_date.isoformat())
                raise DataError(f"{path}: can't be read: {first_line(error)}") from error
            unreadable |= broken
            frames = {day: frame for day, frame in frames.items() if day not in broken}
    for day, why in unreadable.items():
        log.warning("%s is not read: %s", day, why)
    replaced = _replaced(scope, read, listed, day_files, lost)
    too_late: dict[date, int] = {}
    if Reason.TOO_LATE in tally.quarantined():
        own_day = day_of(sf.col("timestamp"), config.time_zone)
        of_late = scoped.where(
            (sf.col("reason") == Reason.TOO_LATE.value) & (sf.col(SCOPE) == "input")
        )
        too_late = {row[0]: row[1] for row in of_late.groupBy(own_day).count().collect()}

    def count_late(days: Collection[date]) -> dict[date, int]:
        counts: dict[date, int] = {}
        for day in days:
            try:
                rows = _read_day(spark, config, lake, day)
                counts |= _count_late(spark, config, lake, rows, [day])
            except (DataError, PySparkException, Py4JJavaError) as error:
                unreadable[day] = first_line(error)
        return counts

    return Reading(
        run_date=scope.run_date,
        rows=scoped,
        tally=tally,
        replaced=frozenset(replaced),
        added_to=frozenset(read - replaced),
        unchanged=frozenset(),
        files={
            day: tally.files.get(day, frozenset())
            | (listed.get(day, frozenset()) if day in read else frozenset())
            for day in read | tally.valid.keys()
        },
        others=_records_of_others(scope, scope.changed_too_late(listed), count_late, now),
        too_late=too_late,
        unreadable=unreadable,
    )


def _read_day(spark: SparkSession, config: DataConfig, lake: Lake, day: date) -> DataFrame:
    """Return the rows of one day's files.

    Raises:
        DataError: a column is missing, or what is read for the header can't be.
    """
    path = config.events.resolve(lake, day.isoformat())
    try:
        rows = read_source(spark, config.events, path, EVENT_COLUMNS)
    except (PySparkException, Py4JJavaError) as error:
        raise DataError(f"{path}: can't be read: {first_line(error)}") from error
    return validate(rows, config, day).withColumn(_FILE_DAY, sf.lit(day))


def _replaced(
    scope: Scope,
    read: Collection[date],
    listed: FilesByDay,
    day_files: DayFiles,
    unreadable: Collection[date],
) -> set[date]:
    """Return those days of `read` that are replaced: all of their rows can be read now.

    Of the others a part is gone, or can't be read: a later file in which rows of theirs came.
    """
    replaced = set()
    for day in read:
        record = scope.lake.records.get(day)
        given_by = {day_files.day_of(file.path) for file in record.files} if record else set()
        is_lost = any(d is not None and d not in listed for d in given_by)
        is_out_of_reach = any(d in unreadable for d in given_by)
        if not (is_lost or is_out_of_reach):
            replaced.add(day)
    return replaced


def _with_target(frames: Mapping[date, DataFrame], read: Collection[date]) -> DataFrame:
    """Say of each row whether it is input: of a file that is `read`, or a late row of its day."""
    rows = reduce(DataFrame.unionByName, frames.values())
    is_own = sf.col(_FILE_DAY).isin(sorted(read))
    is_late = sf.col("reason").isNull() & sf.col(DAY).isin(sorted(read))
    return rows.withColumn(HASH, sf.lit(None).cast("bigint")).withColumn(
        SCOPE, sf.when(is_own | is_late, "input").otherwise("earlier")
    )


def _broken(frames: Mapping[date, DataFrame], run_date: date) -> dict[date, str]:
    """Return the days but `run_date` whose files fail as they are read, and why."""
    broken = {}
    for day, frame in frames.items():
        if day == run_date:
            continue
        try:
            frame.agg(sf.sum(sf.xxhash64(*EVENT_COLUMNS) % sf.lit(2))).collect()
        except (PySparkException, Py4JJavaError) as error:
            broken[day] = f"can't be read: {first_line(error)}"
    return broken


def _records_of_others(
    scope: Scope,
    seen: Mapping[date, str],
    count_late: Callable[[Collection[date]], Mapping[date, int]],
    now: datetime,
) -> dict[date, DayRecord]:
    """Return the records of days that are not read, with the rows that came too late for them.

    `seen` says what the source looks like now for such days; they are counted once for each look.
    """
    others = dict(scope.lake.records)
    if scope.only is not None:
        return others
    new = {}
    for day, look in seen.items():
        record = others.get(day)
        if record and record.digest == look:
            others[day] = record.model_copy(update={"left_out": None})
        elif record is None or record.left_out is None or record.left_out.seen != look:
            new[day] = look
    if new:
        rows = count_late(sorted(new))
        for day, look in new.items():
            # Of a day that was passed by nothing is held: what has come since is all of it.
            record = others.get(day) or DayRecord(read_at=now, complete=True)
            left_out = LeftOut(rows=rows.get(day, 0), seen=look)
            others[day] = record.model_copy(update={"left_out": left_out})
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
