"""Writing what was read: the days of the lake, its quarantine, and the records of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import DataConfig
from pipelines.data.contract import DAY, EVENT_COLUMNS, DayChange, event_schema
from pipelines.data.day_records import DayRecord, save_records
from pipelines.data.days import (
    UnfinishedDays,
    delete_day,
    held_days,
    lake_id,
    read_days,
    write_days,
)
from pipelines.data.files import SparkFiles
from pipelines.data.reading import Reading
from pipelines.data.scope import Scope
from pipelines.data.tally import SCOPE
from pipelines.lake import Lake

_INTERRUPTED = (
    "an ingest was interrupted while it wrote this day, and its source is not there any more: it "
    "stays as it is"
)


@dataclass(frozen=True)
class Written:
    """Counts of the rows that were written, what changed in days held before, and the records."""

    accepted: int
    on_run_date: int
    duplicates: int
    unknown_items: int
    changes: Mapping[date, DayChange]
    records: Mapping[date, DayRecord]


def write(
    spark: SparkSession,
    config: DataConfig,
    lake: Lake,
    reading: Reading,
    scope: Scope,
    now: datetime,
) -> Written:
    """Write the days of a reading, accepted and quarantined rows alike, and their records."""
    files, tally = SparkFiles(spark), reading.tally
    unfinished = UnfinishedDays(files, lake.ratings)
    bad_days = tally.bad_by_day()
    # What was being written when an ingest ended, and can't be written anew.
    interrupted = {d for d in scope.lake.interrupted if d <= scope.run_date} - tally.valid.keys()
    for day in interrupted:
        reading.unreadable.setdefault(day, _INTERRUPTED)
    stale_bad = (held_days(files, lake.quarantine) & reading.replaced) - bad_days.keys()
    touched = {*tally.valid, *bad_days, *interrupted, *stale_bad}
    rows = reading.rows.where(sf.col(SCOPE) == "input")
    if reading.unchanged:
        rows = rows.where(~sf.col(DAY).isin(sorted(reading.unchanged)))
    changes = _changes(spark, config, lake, rows, reading, scope)
    unfinished.start(touched)
    for day in stale_bad:
        delete_day(files, lake.quarantine, day)
    if bad_days:
        bad = rows.where("reason is not null").select(DAY, "reason", "detail", "raw")
        write_days(bad, lake.quarantine, bad_days, ("raw", "reason"))
    counts = _write_accepted(spark, config, lake, rows.where("reason is null"), reading, scope)
    records = dict(reading.others)
    read = reading.replaced | reading.added_to
    for day in {*tally.valid, *reading.unchanged, *(read & reading.files.keys())}:
        records[day] = _record(day, reading, config, records.get(day), now)
    save_records(lake.ratings, records)
    lake_id(files, lake.ratings)
    unfinished.finish(touched)
    return Written(**counts, changes=changes, records=records)


def _record(
    day: date, reading: Reading, config: DataConfig, before: DayRecord | None, now: datetime
) -> DayRecord:
    """Return what is known of a day that has been read."""
    files = reading.files.get(day, frozenset())
    digest = reading.tally.digests.get(day)
    record = DayRecord(
        read_at=now, complete=config.calendar.is_complete(day, now), digest=digest, files=files
    )
    if day in reading.replaced or day in reading.unchanged:
        return record
    if day in reading.added_to:
        # A part of it is known from before, by more rows than there are now, or other files.
        if before and (before.rows or 0) > (record.rows or 0):
            digest = before.digest
        known = before.files if before else frozenset()
        return record.model_copy(update={"digest": digest, "files": files | known})
    # Rows that came with another day's file; its own may not have been read at all.
    if before is None:
        return record.model_copy(update={"complete": False, "digest": None})
    return before.model_copy(update={"files": before.files | files}) if before.files else before


def _there(spark: SparkSession, lake: Lake) -> set[date]:
    """Return the days that the lake has, also those whose last write was interrupted.

    (Where a rename is atomic they are whole, old or new; else they are all there is.)
    """
    return held_days(SparkFiles(spark), lake.ratings)


def _changes(
    spark: SparkSession,
    config: DataConfig,
    lake: Lake,
    rows: DataFrame,
    reading: Reading,
    scope: Scope,
) -> dict[date, DayChange]:
    """Return what changes in each day that the lake holds already."""
    days = sorted(_there(spark, lake) & reading.tally.valid.keys())
    if not days:
        return {}
    is_of_days = sf.col(DAY).isin(days)
    new = rows.where(is_of_days & sf.col("reason").isNull()).select(DAY, *EVENT_COLUMNS).distinct()
    held = read_days(spark, lake.ratings, event_schema(config)).where(is_of_days)
    sides = new.withColumn("side", sf.lit(1)).union(
        held.select(DAY, *EVENT_COLUMNS, sf.lit(-1).alias("side"))
    )
    compared = (
        sides.groupBy(DAY, *EVENT_COLUMNS)
        .agg(sf.sum("side").alias("side"))
        .groupBy(DAY)
        .agg(sf.count_if(sf.col("side") > 0), sf.count_if(sf.col("side") < 0))
    )
    return {
        day: DayChange.of(added, gone if day in reading.replaced else 0)
        for day, added, gone in compared.collect()
    }


def _write_accepted(
    spark: SparkSession,
    config: DataConfig,
    lake: Lake,
    valid: DataFrame,
    reading: Reading,
    scope: Scope,
) -> dict[str, int]:
    """Write each distinct event once; returns the counts of :class:`Written`.

    Raises:
        RuntimeError: the rows written and left out are not the rows there were.
    """
    rows_by_day = dict(reading.tally.valid)
    if not rows_by_day:
        return {"accepted": 0, "on_run_date": 0, "duplicates": 0, "unknown_items": 0}
    rows = valid.select(DAY, *EVENT_COLUMNS, sf.lit(1).alias("copies"))
    added_to = sorted((_there(spark, lake) & rows_by_day.keys()) - reading.replaced)
    if added_to:
        held = read_days(spark, lake.ratings, event_schema(config)).where(
            sf.col(DAY).isin(added_to)
        )
        # Cut off from the files that are about to be replaced.
        there = held.select(DAY, *EVENT_COLUMNS, sf.lit(0).alias("copies")).localCheckpoint()
        rows = rows.union(there)
        for day, count in there.groupBy(DAY).count().collect():
            rows_by_day[day] += count
    copies = rows.groupBy(DAY, *EVENT_COLUMNS).agg(sf.sum("copies").alias("copies"))
    catalogue = spark.read.parquet(lake.items).select("item_id", sf.lit(True).alias("known"))
    observation = Observation()
    is_new = sf.col("copies") > 0
    counts = (
        sf.count_if(is_new).alias("accepted"),
        sf.count_if(is_new & (sf.col(DAY) == sf.lit(scope.run_date))).alias("on_run_date"),
        sf.sum(sf.greatest(sf.col("copies") - 1, sf.lit(0))).alias("duplicates"),
        sf.count_if(is_new & sf.col("known").isNull()).alias("unknown_items"),
    )
    write_days(
        copies.join(catalogue, "item_id", "left"),
        lake.ratings,
        rows_by_day,
        ("user_id", "timestamp", "item_id", "rating"),
        # Counted where the rows are written, so that the counts are of what is in the lake.
        lambda frame: frame.observe(observation, *counts).select(DAY, *EVENT_COLUMNS),
    )
    written: dict[str, int] = observation.get
    expected = sum(reading.tally.valid.values())
    if written["accepted"] + written["duplicates"] != expected:
        raise RuntimeError(f"{expected} valid rows, but {written} in {lake.ratings}")
    return written
