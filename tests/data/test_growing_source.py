"""A source that grows as in life: whoever starts the runs, every event arrives once, on its day.

Each of five days has six events. Besides, one row comes a day late, one is corrected after two
days, one day's file is written anew with a row more, and the run of one night is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.config import DataConfig
from pipelines.data.contract import DayChange, IngestSummary
from pipelines.data.ingest import days_to_reread, ingest, reread
from pipelines.lake import Lake
from pipelines.run import resolve_run_date
from pipelines.schedule import Schedule
from tests.data.landing import HEADER, config, put_items, write

FIRST = date(2026, 3, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(5)]
#: The run of this night does not take place.
MISSED = DAYS[2]


@dataclass(frozen=True)
class Event:
    user: int
    at: datetime
    rating: float
    #: From when on the source has it.
    arrives: datetime
    #: From when on it has it no more.
    leaves: datetime | None = None
    #: The day in whose file it stands, where each day has files.
    file_day: date | None = None


def event(user: int, day: date, hour: int, rating: float = 4.0) -> Event:
    moment = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
    return Event(user, moment, rating, arrives=moment)


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


REGULAR = [event(n, day, hour) for n, day in enumerate(DAYS) for hour in (0, 1, 5, 12, 20, 23)]
#: Events at night, which a run at three sees of the day that has just begun.
LATE = replace(event(10, DAYS[0], 22), arrives=noon(DAYS[1]), file_day=DAYS[1])
CORRECTED = replace(event(11, DAYS[1], 9), leaves=noon(DAYS[3]))
CORRECTION = replace(CORRECTED, rating=1.0, arrives=noon(DAYS[3]), leaves=None)
IN_REWRITTEN_FILE = replace(event(12, DAYS[2], 7), arrives=noon(DAYS[4]))
EVENTS = [*REGULAR, LATE, CORRECTED, CORRECTION, IN_REWRITTEN_FILE]
EXPECTED = sorted(
    (e.at.date(), e.user, e.rating, int(e.at.timestamp())) for e in EVENTS if e is not CORRECTED
)


def there(now: datetime) -> list[Event]:
    return [e for e in EVENTS if e.arrives <= now and not (e.leaves and e.leaves <= now)]


def lines(events: Iterable[Event]) -> list[str]:
    return [f"{e.user},1,{e.rating},{int(e.at.timestamp())}" for e in events]


def put_whole(lake: Lake, now: datetime) -> None:
    """One file, to which rows are added."""
    put(Path(lake.landing) / "ratings" / "all.csv", lines(there(now)))


def put_daily(lake: Lake, now: datetime) -> None:
    """A file a day."""
    for day in DAYS:
        of_day = [e for e in there(now) if (e.file_day or e.at.date()) == day]
        if of_day:
            put(Path(lake.landing) / "ratings" / f"{day}.csv", lines(of_day))


def put(path: Path, rows: list[str]) -> None:
    text = "".join(f"{line}\n" for line in [HEADER, *rows])
    if not path.exists() or path.read_text() != text:
        write(path, HEADER, *rows)


SOURCES: dict[str, tuple[DataConfig, Callable[[Lake, datetime], None]]] = {
    "one file": (config(), put_whole),
    "a folder of days, as one history": (config(), put_daily),
    "files for each day": (config(events={"path": "{landing}/ratings/{run_date}.csv"}), put_daily),
}


#: Each ingest costs some two seconds of a processor: not every way is tried with every source.
TWO_SOURCES = ("one file", "files for each day")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    put_items(lake)
    return lake


def events(spark: SparkSession, lake: Lake) -> list[tuple[object, ...]]:
    rows = spark.read.parquet(lake.ratings).selectExpr(
        "dt", "user_id", "rating", "unix_micros(timestamp) div 1000000"
    )
    return sorted(tuple(row) for row in rows.collect())


@pytest.mark.parametrize("name", SOURCES)
def test_every_event_arrives_once_by_the_schedule(
    spark: SparkSession, lake: Lake, name: str
) -> None:
    settings, put_source = SOURCES[name]
    schedule = Schedule("0 3 * * *", settings.calendar)
    start = settings.calendar.start_of(FIRST)
    summaries: dict[date, IngestSummary] = {}
    for _ in range(7):
        start = schedule.next_start(start)
        put_source(lake, start)
        run_date = resolve_run_date(None, None, start, settings.calendar)
        assert run_date == schedule.day_of_start(start)
        if run_date in DAYS and run_date != MISSED:
            summaries[run_date] = ingest(spark, settings, lake, run_date, start)
    assert all(summary.complete for summary in summaries.values())
    # What came by the end of the last run. What comes later is for the next one.
    assert events(spark, lake) == EXPECTED
    changed = {run: summary.changed_days for run, summary in summaries.items()}
    added = DayChange(added=1, replaced=0, removed=0)
    assert changed == {
        DAYS[0]: {},
        DAYS[1]: {DAYS[0]: added},
        DAYS[3]: {DAYS[1]: DayChange(added=0, replaced=1, removed=0)},
        DAYS[4]: {DAYS[2]: added},
    }
    assert not any(summary.incomplete_days for summary in summaries.values())


@pytest.mark.parametrize("name", TWO_SOURCES)
def test_every_event_arrives_once_by_a_backfill(spark: SparkSession, lake: Lake, name: str) -> None:
    """In whatever order its days are read."""
    settings, put_source = SOURCES[name]
    now = noon(DAYS[-1] + timedelta(days=1))
    put_source(lake, now)
    for day in (DAYS[1], DAYS[4], DAYS[0], DAYS[3], DAYS[2]):
        ingest(spark, settings, lake, day, now)
    assert events(spark, lake) == EXPECTED


@pytest.mark.parametrize("name", TWO_SOURCES)
def test_a_day_that_was_read_too_early_is_read_again(
    spark: SparkSession, lake: Lake, name: str
) -> None:
    """By hand, in the middle of each day, as somebody does who is curious."""
    settings, put_source = SOURCES[name]
    for day in DAYS:
        put_source(lake, noon(day))
        summary = ingest(spark, settings, lake, day, noon(day))
        assert not summary.complete
        assert summary.incomplete_days == [day]
    late = settings.model_copy(update={"late_days": 0})
    now = noon(DAYS[-1] + timedelta(days=1))
    put_source(lake, now)
    # However long ago, and whatever else is taken in.
    assert days_to_reread(spark, late, lake) == {DAYS[-1]: noon(DAYS[-1])}
    done = reread(spark, late, lake, {DAYS[-1]}, now)
    assert done.changes == {DAYS[-1]: DayChange(added=2, replaced=0, removed=0)}
    assert days_to_reread(spark, late, lake) == {}
    # And what changed in earlier days since they were complete.
    ingest(spark, settings, lake, DAYS[-1], now)
    assert events(spark, lake) == EXPECTED


@pytest.mark.parametrize("name", TWO_SOURCES)
def test_what_comes_too_late_is_counted_by_day_and_can_be_asked_for(
    spark: SparkSession, lake: Lake, name: str
) -> None:
    settings, put_source = SOURCES[name]
    settings = settings.model_copy(update={"late_days": 1})
    put_source(lake, noon(DAYS[4]) - timedelta(hours=1))
    for day in DAYS[:4]:
        ingest(spark, settings, lake, day, noon(DAYS[4]))
    held = events(spark, lake)
    # IN_REWRITTEN_FILE, two days late.
    put_source(lake, noon(DAYS[4] + timedelta(days=1)))
    for _ in range(2):
        summary = ingest(spark, settings, lake, DAYS[4], noon(DAYS[4] + timedelta(days=1)))
        assert summary.too_late_rows == {DAYS[2]: 1}
        assert summary.changed_days == {}
        assert [event for event in events(spark, lake) if event[0] != DAYS[4]] == held
        assert "1 rows came too late" in "\n".join(summary.describe_days())
    span = days_to_reread(spark, settings, lake, DAYS[2], DAYS[2])
    reread(spark, settings, lake, set(span))
    assert events(spark, lake) == EXPECTED
    assert ingest(spark, settings, lake, DAYS[4]).too_late_rows == {}


def test_what_a_rolling_history_has_lost_stays_in_the_lake(spark: SparkSession, lake: Lake) -> None:
    """A source that keeps the last two days and a half, read each night."""
    settings = config()
    for day in DAYS[:4]:
        now = settings.calendar.end_of(day) + timedelta(hours=3)
        kept = [e for e in REGULAR if now - timedelta(hours=54) <= e.at <= now]
        put(Path(lake.landing) / "ratings" / "all.csv", lines(kept))
        summary = ingest(spark, settings, lake, day, now)
        assert (summary.changed_days, summary.too_late_rows) == ({}, {})
    assert len(events(spark, lake)) == 4 * 6
