"""Reading a source with files for each day: sizes and times say which of them are opened."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import date, datetime
from functools import reduce

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import DataConfig
from pipelines.data.contract import DAY, EVENT_COLUMNS, Reason
from pipelines.data.day_files import DayFiles
from pipelines.data.files import SparkFiles
from pipelines.data.reading import Reading, count_missing, records_of_others
from pipelines.data.scope import FilesByDay, Scope
from pipelines.data.source import first_line, read_source
from pipelines.data.tally import HASH, SCOPE, Tally, tally_rows
from pipelines.data.validate import validate
from pipelines.data.values import day_of
from pipelines.errors import DataError, IdleDayError, NoDataError
from pipelines.lake import Lake

log = logging.getLogger(__name__)

_FILE_DAY = "file_day"


def read_daily(
    spark: SparkSession, config: DataConfig, lake: Lake, scope: Scope, now: datetime
) -> Reading:
    """Read the files of the run date, and of the days before it that are new or have changed.

    Raises:
        NoDataError: the run date has no files of its own.
        DataError: they can't be read, or a column is missing.
    """
    day_files = DayFiles(config.events, lake)
    listed = day_files.list(SparkFiles(spark))
    unreadable = _unrecognised(spark, config, lake, scope, listed)
    complete = {d: f for d, f in listed.items() if config.calendar.is_complete(d, now)}
    wanted = set(scope.file_days(listed))
    days = wanted | scope.carriers(wanted, complete)
    frames = _frames(spark, config, lake, scope, days, unreadable)
    scoped, tally = _tallied(config, lake, scope, wanted, frames, unreadable)
    for day, why in unreadable.items():
        log.warning("%s is not read: %s", day, why)
    lost = unreadable.keys() - {scope.run_date}
    read = wanted - lost
    replaced = _replaced(scope, read, listed, day_files, lost)

    def count_late(days: Collection[date]) -> dict[date, int]:
        counts: dict[date, int] = {}
        for day in days:
            try:
                rows = _read_day(spark, config, lake, day)
                counts |= count_missing(spark, config, lake, rows, [day])
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
        others=records_of_others(scope, scope.changed_too_late(listed), count_late, now),
        too_late=_too_late(scoped, tally, config),
        unreadable=unreadable,
    )


def _unrecognised(
    spark: SparkSession, config: DataConfig, lake: Lake, scope: Scope, listed: FilesByDay
) -> dict[date, str]:
    """Say so if the run date has files, and no day is recognised in their paths.

    Raises:
        NoDataError: it has none. An IdleDayError, if no other day's are read either.
    """
    if scope.only is not None or scope.run_date in listed:
        return {}
    path = config.events.resolve(lake, scope.run_date.isoformat())
    if not SparkFiles(spark).matches(path):
        is_idle = scope.file_days(listed) == {scope.run_date}
        kind = IdleDayError if is_idle else NoDataError
        raise kind(f"{path}: no such file or folder")
    why = f"days before it are not looked for: no day is recognised in {config.events.path}"
    return {scope.run_date: why}


def _frames(
    spark: SparkSession,
    config: DataConfig,
    lake: Lake,
    scope: Scope,
    days: Collection[date],
    unreadable: dict[date, str],
) -> dict[date, DataFrame]:
    """Return the rows of each day's files; `unreadable` gets the days of the past that fail.

    Raises:
        DataError: the run date's fail, or those of a day that somebody asked for.
    """
    frames = {}
    for day in sorted(days):
        try:
            frames[day] = _read_day(spark, config, lake, day)
        except DataError as error:
            if day == scope.run_date or scope.only is not None:
                raise
            unreadable[day] = str(error)
    return frames


def _tallied(
    config: DataConfig,
    lake: Lake,
    scope: Scope,
    wanted: Collection[date],
    frames: dict[date, DataFrame],
    unreadable: dict[date, str],
) -> tuple[DataFrame, Tally]:
    """Return all rows (cached) and their tally, without days of the past that fail meanwhile.

    Raises:
        NoDataError: nothing is left to read.
        DataError: the run date's files fail.
    """
    if not frames:
        asked = ", ".join(map(str, sorted(scope.only or ())))
        raise NoDataError(f"{config.events.path}: no file of {asked}")
    scoped = _with_target(frames, set(wanted) - (unreadable.keys() - {scope.run_date})).persist()
    try:
        return scoped, tally_rows(scoped)
    except (PySparkException, Py4JJavaError) as error:
        scoped.unpersist()
        # A day of the past must not keep the run date from being built.
        broken = _broken(frames, scope.run_date)
        if not broken:
            path = config.events.resolve(lake, scope.run_date.isoformat())
            raise DataError(f"{path}: can't be read: {first_line(error)}") from error
    unreadable |= broken
    whole = {day: frame for day, frame in frames.items() if day not in broken}
    return _tallied(config, lake, scope, wanted, whole, unreadable)


def _too_late(scoped: DataFrame, tally: Tally, config: DataConfig) -> dict[date, int]:
    """Return by day how many rows came with a file too long after it."""
    if Reason.TOO_LATE not in tally.quarantined():
        return {}
    is_late = (sf.col("reason") == Reason.TOO_LATE.value) & (sf.col(SCOPE) == "input")
    own_day = day_of(sf.col("timestamp"), config.time_zone)
    return {row[0]: row[1] for row in scoped.where(is_late).groupBy(own_day).count().collect()}


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
