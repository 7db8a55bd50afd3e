"""Ingest: source files into the lake's days, and what breaks the contract into quarantine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime

from pydantic import BaseModel, ConfigDict
from pyspark.sql import SparkSession

from pipelines.config import DataConfig
from pipelines.data.catalogue import ingest_items, ingest_users
from pipelines.data.contract import DayChange, IngestSummary
from pipelines.data.daily_source import read_daily
from pipelines.data.history_source import read_history
from pipelines.data.identity import WAY_OUT
from pipelines.data.lake_state import LakeState
from pipelines.data.reading import Reading
from pipelines.data.scope import Scope
from pipelines.data.tally import Tally
from pipelines.data.writing import write
from pipelines.errors import IdleDayError, NoDataError, OtherSourceError
from pipelines.lake import Lake
from pipelines.progress import progress

_ANY_LATENESS = 36_500
# Of so many days that source and lake both have, most must have about as many rows as before.
_DAYS_TO_COMPARE = 10


def ingest(
    spark: SparkSession,
    config: DataConfig,
    lake: Lake,
    run_date: date,
    now: datetime | None = None,
) -> IngestSummary:
    """Bring the run date's events, the catalogue and the users into the lake.

    Besides the run date, the days before it that the lake lacks are read, those that were read
    before they were complete, and those of the last ``late_days`` whose source has changed since.
    Rows of a day that arrive with a later day's file reach the day that they belong to. All other
    days stay as they are. Doing it again gives the same lake. One ingest at a time.

    `now` is the moment at which the source is read (by default, now): a day that is not complete
    at it is marked, and read again later.

    Raises:
        NoDataError: the run date has no files of its own, or no accepted event; then no event is
            written. An IdleDayError, if it has no row at all and no other day has a new one.
        OtherSourceError: the lake was made from another source.
        DataError: a source or a column is missing, or the catalogue is empty.
    """
    now = now or datetime.now(UTC)
    state = LakeState.of(spark, config, lake)
    scope = Scope(run_date, config.late_days, state.days)
    events_path = config.events.resolve(lake, run_date.isoformat())
    items_path = config.items.resolve(lake, run_date.isoformat())
    users_path = config.users.resolve(lake, run_date.isoformat()) if config.users else ""
    with progress("ingest", total=4, unit="steps") as advance:
        advance(0, f"validating {events_path}")
        with _reading(spark, config, lake, scope, now) as read:
            tally = read.tally
            _require_events(tally, run_date, events_path, is_daily=config.events.is_daily)
            _require_like_before(tally, scope, lake, events_path)
            advance(1, f"{tally.input_rows:,} rows; reading {items_path}")
            items = ingest_items(spark, config, items_path, lake.items)
            users = ingest_users(spark, config, users_path, lake.users)
            advance(1, f"{items.written:,} items; writing {len(tally.valid):,} days")
            # Before the first row: who comes after a crash must know whose rows these are.
            state.source.save(lake.made_from)
            written = write(spark, config, lake, read, scope, now)
            advance(1)
        advance(1, f"{written.accepted:,} events accepted")
    left_out = {day: r.left_out.rows for day, r in written.records.items() if r.left_out}
    too_late = Counter(read.too_late)
    too_late.update({day: rows for day, rows in left_out.items() if rows and day <= run_date})
    incomplete = [d for d, r in written.records.items() if d <= run_date and not r.complete]
    return IngestSummary(
        run_date=run_date,
        events_path=events_path,
        items_path=items_path,
        input_rows=tally.input_rows,
        accepted=written.accepted,
        accepted_on_run_date=written.on_run_date,
        quarantined=tally.quarantined(),
        exact_duplicates=written.duplicates,
        earlier_rows=tally.earlier_rows - read.counted_too_late(left_out),
        later_rows=tally.later_rows,
        days_written=len(tally.valid),
        unknown_items=written.unknown_items,
        items=items.written,
        repeated_items=items.repeated,
        rejected_items=items.rejected,
        users=users.written if users else None,
        complete=config.calendar.is_complete(run_date, now),
        changed_days={d: c for d, c in sorted(written.changes.items()) if c.rows},
        too_late_rows=dict(sorted(too_late.items())),
        unreadable_days=read.unreadable,
        incomplete_days=sorted(incomplete),
    )


@contextmanager
def _reading(
    spark: SparkSession, config: DataConfig, lake: Lake, scope: Scope, now: datetime
) -> Iterator[Reading]:
    """Read what `scope` asks for; its rows are cached while the block runs."""
    read_source = read_daily if config.events.is_daily else read_history
    read = read_source(spark, config, lake, scope, now)
    try:
        yield read
    finally:
        read.rows.unpersist()


class Reread(BaseModel):
    """What reading days again came to; `kept` are those that the source does not have any more."""

    model_config = ConfigDict(frozen=True)

    changes: dict[date, DayChange]
    kept: list[date]

    def describe(self) -> list[str]:
        """Return a line for each day."""
        lines = [f"{day}: {change}" for day, change in sorted(self.changes.items())]
        return lines + [f"{day}: not in the source any more, stays as it is" for day in self.kept]


def days_to_reread(
    spark: SparkSession,
    config: DataConfig,
    lake: Lake,
    first: date | None = None,
    last: date | None = None,
) -> dict[date, datetime]:
    """Return when each of the lake's days was read: those of a span, or all read too early."""
    days = LakeState.of(spark, config, lake).days
    is_span = first is not None or last is not None
    return {
        day: record.read_at
        for day, record in sorted(days.records.items())
        if (day in days.held or record.left_out)
        and (is_span or not record.complete)
        and (first or day) <= day <= (last or day)
    }


def reread(
    spark: SparkSession,
    config: DataConfig,
    lake: Lake,
    days: Collection[date],
    now: datetime | None = None,
) -> Reread:
    """Read days that the lake holds again, whatever is known of them.

    Raises:
        OtherSourceError: the lake was made from another source.
        DataError: the source is not there, or a column is missing.
    """
    if not days:
        return Reread(changes={}, kept=[])
    now = now or datetime.now(UTC)
    state = LakeState.of(spark, config, lake)
    # However late the rows are: somebody asks for them.
    config = config.model_copy(update={"late_days": _ANY_LATENESS})
    scope = Scope(max(days), config.late_days, state.days, frozenset(days))
    try:
        with _reading(spark, config, lake, scope, now) as read:
            written = write(spark, config, lake, read, scope, now)
    except NoDataError:
        return Reread(changes={}, kept=sorted(days))
    done = {day: written.changes.get(day, DayChange.of(0, 0)) for day in read.tally.valid}
    return Reread(changes=done, kept=sorted(set(days) - done.keys()))


def _require_events(tally: Tally, run_date: date, path: str, *, is_daily: bool) -> None:
    if run_date in tally.valid:
        return
    bad = {reason.value: n for (day, reason), n in tally.bad.items() if day == run_date}
    # A history has its rows without a time on every run date: they are not of that day.
    has_rows = bool(bad) if is_daily else run_date in tally.dated
    kind = NoDataError if has_rows or tally.valid else IdleDayError
    rejected = ", ".join(f"{n} {reason}" for reason, n in sorted(bad.items()))
    raise kind(
        f"no accepted event on {run_date} in {path}; "
        + (f"the newest is of {tally.newest}" if tally.newest else "nor on any other day")
        + (f"; quarantined: {rejected}" if rejected else "")
    )


def _require_like_before(tally: Tally, scope: Scope, lake: Lake, path: str) -> None:
    """Refuse a source that has other data under the same name.

    Raises:
        OtherSourceError: most days that both have differ by more than half of their rows.
    """
    before = {
        day: record.rows
        for day, record in scope.lake.records.items()
        if record.rows and record.complete and day in tally.dated and day != scope.run_date
    }
    other = [d for d, rows in before.items() if abs(tally.dated[d] - rows) > rows / 2]
    if len(before) >= _DAYS_TO_COMPARE and len(other) > len(before) / 2:
        raise OtherSourceError(
            f"{path} holds other data than the lake {lake.root} was made from: of {len(before)} "
            f"days that both have, {len(other)} have less than half or more than one and a half "
            f"times the rows. {WAY_OUT}"
        )
