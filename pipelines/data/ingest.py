"""Ingest: source files into the lake's days, and what breaks the contract into quarantine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import DataConfig
from pipelines.data.catalogue import ingest_items, ingest_users
from pipelines.data.contract import DAY, IngestSummary, Reason
from pipelines.data.days import UnfinishedDays, delete_day, held_days, write_days
from pipelines.data.files import SparkFiles
from pipelines.data.source import read_source
from pipelines.data.validate import validate
from pipelines.errors import NoDataError
from pipelines.lake import Lake
from pipelines.progress import progress

_COLUMNS = ("user_id", "item_id", "rating", "timestamp")


def ingest(spark: SparkSession, config: DataConfig, lake: Lake, run_date: date) -> IngestSummary:
    """Bring the run date's events, the catalogue and the users into the lake.

    A source with files for each day (``{run_date}`` in its path) gives the run date alone. One
    with the whole history gives the run date and every earlier day that the lake does not hold
    yet; other days stay as they are. Doing it again gives the same lake. One ingest at a time.

    Raises:
        NoDataError: the run date has no files of its own, or no accepted event; then no event is
            written.
        DataError: a source or a column is missing, or the catalogue is empty.
    """
    events_path = config.events.resolve(lake, run_date.isoformat())
    items_path = config.items.resolve(lake, run_date.isoformat())
    if config.events.is_daily and not SparkFiles(spark).matches(events_path):
        raise NoDataError(f"{events_path}: no such file or folder")
    rows = read_source(spark, config.events, events_path, _COLUMNS)
    users_path = config.users.resolve(lake, run_date.isoformat()) if config.users else ""
    with progress("ingest", total=4, unit="steps") as advance:
        advance(0, f"validating {events_path}")
        scope = _Scope.of(SparkFiles(spark), lake, config, run_date)
        scoped = _with_scope(spark, validate(rows, config, run_date), scope).persist()
        try:
            tally = _tally(scoped)
            _require_events(tally, run_date, events_path)
            advance(1, f"{tally.input_rows:,} rows; reading {items_path}")
            items = ingest_items(spark, config, items_path, lake.items)
            users = ingest_users(spark, config, users_path, lake.users)
            advance(1, f"{items.written:,} items; writing {len(tally.valid):,} days")
            written = _write(spark, lake, scoped.where("scope = 'input'"), scope, tally)
            advance(1)
        finally:
            scoped.unpersist()
        advance(1, f"{written.accepted:,} events accepted")
    return IngestSummary(
        run_date=run_date,
        events_path=events_path,
        items_path=items_path,
        input_rows=tally.input_rows,
        accepted=written.accepted,
        accepted_on_run_date=written.on_run_date,
        quarantined=tally.quarantined(),
        exact_duplicates=written.duplicates,
        earlier_rows=tally.earlier_rows,
        later_rows=tally.later_rows,
        days_written=len(tally.valid),
        unknown_items=written.unknown_items,
        items=items.written,
        repeated_items=items.repeated,
        rejected_items=items.rejected,
        users=users.written if users else None,
    )


@dataclass(frozen=True)
class _Tally:
    """Row counts: valid rows and quarantined rows of each day in scope, and what is out of it."""

    valid: dict[date, int]
    bad: dict[tuple[date, Reason], int]
    earlier_rows: int
    later_rows: int
    newest: date | None

    @property
    def input_rows(self) -> int:
        return sum(self.valid.values()) + sum(self.bad.values())

    def quarantined(self) -> dict[Reason, int]:
        counts: Counter[Reason] = Counter()
        for (_, reason), count in self.bad.items():
            counts[reason] += count
        return {reason: counts[reason] for reason in Reason if counts[reason]}

    def bad_by_day(self) -> dict[date, int]:
        counts: Counter[date] = Counter()
        for (day, _), count in self.bad.items():
            counts[day] += count
        return dict(counts)


@dataclass(frozen=True)
class _Scope:
    """The days that this ingest writes: the run date, and what the lake lacks before it."""

    run_date: date
    is_daily: bool
    held: frozenset[date]

    @classmethod
    def of(cls, files: SparkFiles, lake: Lake, config: DataConfig, run_date: date) -> _Scope:
        # A day whose write was interrupted does not count as held.
        held = held_days(files, lake.ratings) - UnfinishedDays(files, lake.ratings).days()
        return cls(run_date, config.events.is_daily, frozenset(held - {run_date}))

    def covers(self, day: date) -> bool:
        if self.is_daily:
            return day == self.run_date
        return day <= self.run_date and day not in self.held


@dataclass(frozen=True)
class _Written:
    accepted: int
    on_run_date: int
    duplicates: int
    unknown_items: int


def _tally(scoped: DataFrame) -> _Tally:
    valid: dict[date, int] = {}
    bad: dict[tuple[date, Reason], int] = {}
    outside = {"earlier": 0, "later": 0}
    newest: date | None = None
    for row in scoped.groupBy("scope", DAY, "reason").count().collect():
        scope, day, reason, count = row
        if reason is None:
            newest = max(newest or day, day)
        if scope != "input":
            outside[scope] += count
        elif reason is None:
            valid[day] = count
        else:
            bad[day, Reason(reason)] = count
    return _Tally(valid, bad, outside["earlier"], outside["later"], newest)


def _require_events(tally: _Tally, run_date: date, path: str) -> None:
    if run_date in tally.valid:
        return
    bad = {reason.value: n for (day, reason), n in tally.bad.items() if day == run_date}
    rejected = ", ".join(f"{n} {reason}" for reason, n in sorted(bad.items()))
    raise NoDataError(
        f"no accepted event on {run_date} in {path}; "
        + (f"the newest is of {tally.newest}" if tally.newest else "nor on any other day")
        + (f"; quarantined: {rejected}" if rejected else "")
    )


def _with_scope(spark: SparkSession, rows: DataFrame, scope: _Scope) -> DataFrame:
    """Say of each row whether it is input, earlier or later; empty those that are no input.

    (The latter are only counted, and the frame is kept while the days are written.)
    """
    if scope.is_daily:
        return rows.withColumn("scope", sf.lit("input"))
    held = spark.createDataFrame([(d, True) for d in scope.held], f"{DAY} date, held boolean")
    where = (
        sf.when(sf.col(DAY) > sf.lit(scope.run_date), "later")
        .when(sf.col("held"), "earlier")
        .otherwise("input")
    )
    scoped = rows.join(sf.broadcast(held), DAY, "left").withColumn("scope", where)
    is_input = sf.col("scope") == "input"
    contents = [name for name in rows.columns if name not in (DAY, "reason")]
    return scoped.select(
        "scope", DAY, "reason", *(sf.when(is_input, sf.col(name)).alias(name) for name in contents)
    )


def _write(
    spark: SparkSession, lake: Lake, rows: DataFrame, scope: _Scope, tally: _Tally
) -> _Written:
    """Replace the days in scope, accepted and quarantined rows alike."""
    files = SparkFiles(spark)
    unfinished = UnfinishedDays(files, lake.ratings)
    bad_days = tally.bad_by_day()
    # Partitions in scope for which the source has no rows (any more).
    stale = {d for d in held_days(files, lake.ratings) - set(tally.valid) if scope.covers(d)}
    stale_bad = {d for d in held_days(files, lake.quarantine) - set(bad_days) if scope.covers(d)}
    touched = {*tally.valid, *bad_days, *stale, *stale_bad}
    unfinished.start(touched)
    for day in stale:
        delete_day(files, lake.ratings, day)
    for day in stale_bad:
        delete_day(files, lake.quarantine, day)
    if bad_days:
        bad = rows.where("reason is not null").select(DAY, "reason", "detail", "raw")
        write_days(bad, lake.quarantine, bad_days, ("raw", "reason"))
    written = _write_accepted(spark, lake, rows.where("reason is null"), scope, tally)
    unfinished.finish(touched)
    return written


def _write_accepted(
    spark: SparkSession, lake: Lake, valid: DataFrame, scope: _Scope, tally: _Tally
) -> _Written:
    """Write each distinct event once.

    Raises:
        RuntimeError: the rows written and left out are not the rows there were.
    """
    copies = valid.groupBy(DAY, *_COLUMNS).agg(sf.count("*").alias("copies"))
    catalogue = spark.read.parquet(lake.items).select("item_id", sf.lit(True).alias("known"))
    observation = Observation()
    counts = (
        sf.count("*").alias("accepted"),
        sf.count_if(sf.col(DAY) == sf.lit(scope.run_date)).alias("on_run_date"),
        sf.sum(sf.col("copies") - 1).alias("duplicates"),
        sf.count_if(sf.col("known").isNull()).alias("unknown_items"),
    )
    write_days(
        copies.join(catalogue, "item_id", "left"),
        lake.ratings,
        tally.valid,
        ("user_id", "timestamp", "item_id", "rating"),
        # Counted where the rows are written, so that the counts are of what is in the lake.
        lambda frame: frame.observe(observation, *counts).select(DAY, *_COLUMNS),
    )
    written = _Written(**observation.get)
    expected = sum(tally.valid.values())
    if written.accepted + written.duplicates != expected:
        raise RuntimeError(f"{expected} valid rows, but {written} in {lake.ratings}")
    return written
