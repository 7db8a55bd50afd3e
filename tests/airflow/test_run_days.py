"""Which day the next run builds, and from when on it may start."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.airflow.run_days import DayRun, named_day, next_named, next_scheduled
from pipelines.day_calendar import DayCalendar
from pipelines.schedule import Schedule

DAILY, WEEKLY = "0 3 * * *", "0 6 * * 1"
UTC_DAYS = DayCalendar()
BERLIN, NEW_YORK = DayCalendar("Europe/Berlin"), DayCalendar("America/New_York")
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Kiritimati"]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "hours", "last", "earliest", "now", "day", "start"),
    [
        # Never before: the newest day that a start could build.
        (DAILY, 0, None, "1995-01-01", "2026-03-05T12:00", "2026-03-04", "2026-03-05T03:00"),
        (DAILY, 0, None, "1995-01-01", "2026-03-05T02:59", "2026-03-03", "2026-03-04T03:00"),
        (DAILY, 0, None, None, "2026-03-05T12:00", "2026-03-04", "2026-03-05T03:00"),
        (WEEKLY, 0, None, "1995-01-01", "2026-03-05T12:00", "2026-03-01", "2026-03-02T06:00"),
        # As every night.
        (
            DAILY,
            0,
            "2026-03-04",
            "1995-01-01",
            "2026-03-05T03:00",
            "2026-03-05",
            "2026-03-06T03:00",
        ),
        # Nights that were missed are not made up for.
        (
            DAILY,
            0,
            "2026-02-20",
            "1995-01-01",
            "2026-03-05T12:00",
            "2026-03-04",
            "2026-03-05T03:00",
        ),
        # The day was built by a backfill before the schedule came to it.
        (
            DAILY,
            0,
            "2026-03-04",
            "1995-01-01",
            "2026-03-05T01:00",
            "2026-03-05",
            "2026-03-06T03:00",
        ),
        # From daily to weekly, and back.
        (
            WEEKLY,
            0,
            "2026-03-04",
            "1995-01-01",
            "2026-03-05T12:00",
            "2026-03-08",
            "2026-03-09T06:00",
        ),
        (
            DAILY,
            0,
            "2026-03-01",
            "1995-01-01",
            "2026-03-05T12:00",
            "2026-03-04",
            "2026-03-05T03:00",
        ),
        # Days count as complete later than before, then at once again.
        (
            DAILY,
            6,
            "2026-03-04",
            "1995-01-01",
            "2026-03-05T12:00",
            "2026-03-05",
            "2026-03-07T03:00",
        ),
        (
            DAILY,
            0,
            "2026-03-03",
            "1995-01-01",
            "2026-03-05T12:00",
            "2026-03-04",
            "2026-03-05T03:00",
        ),
        # The DAG begins later.
        (DAILY, 0, None, "2026-03-07", "2026-03-05T12:00", "2026-03-07", "2026-03-08T03:00"),
        (DAILY, 0, None, "2026-03-06T00:01", "2026-03-05T12:00", "2026-03-07", "2026-03-08T03:00"),
        # What follows a run, whatever the time is.
        (WEEKLY, 0, "2026-03-01", None, None, "2026-03-08", "2026-03-09T06:00"),
    ],
)
def test_the_next_run_of_a_schedule(
    expression: str,
    hours: int,
    last: str | None,
    earliest: str | None,
    now: str | None,
    day: str,
    start: str,
) -> None:
    schedule = Schedule(expression, DayCalendar(complete_after=timedelta(hours=hours)))
    found = next_scheduled(
        schedule,
        date.fromisoformat(last) if last else None,
        at(earliest) if earliest else None,
        at(now) if now else None,
    )
    assert found == DayRun(date.fromisoformat(day), at(start))


def test_without_any_date_there_is_no_first_day() -> None:
    assert next_scheduled(Schedule(DAILY, UTC_DAYS), None, None, None) is None


@given(
    st.dates(date(2020, 1, 1), date(2060, 1, 1)),
    st.tuples(st.integers(0, 59), st.integers(0, 23)),
    st.sampled_from(["* * *", "* * 1-5", "* * 0", "1,15 * *"]),
    st.floats(0, 23.9),
    st.sampled_from(ZONES),
    st.lists(st.integers(0, 4), min_size=5, max_size=5),
)
def test_a_day_gets_one_run_at_most_and_the_newest_gets_one(
    first: date,
    minute_and_hour: tuple[int, int],
    days: str,
    delay: float,
    zone: str,
    missed: list[int],
) -> None:
    """Whatever the clock does, and however many nights Airflow is down for."""
    minute, hour = minute_and_hour
    calendar = DayCalendar(zone, timedelta(hours=delay))
    schedule = Schedule(f"{minute} {hour} {days}", calendar)
    now, last = calendar.start_of(first), None
    for nights in missed:
        run = next_scheduled(schedule, last, None, now)
        assert run is not None
        assert last is None or run.day > last
        assert calendar.is_complete(run.day, run.run_after)
        if run.run_after <= now:
            # Nothing newer could have been built by a start that has been.
            assert run == DayRun(
                schedule.day_of_start(schedule.latest_start(now)), schedule.latest_start(now)
            )
        else:
            # It was built, and no start in between builds another day.
            assert schedule.day_of_start(schedule.latest_start(now)) == last
        last = run.day
        now = max(now, run.run_after)
        for _ in range(nights):
            now = schedule.next_start(now)


@pytest.mark.parametrize(
    ("calendar", "first", "last", "days"),
    [
        (UTC_DAYS, "2026-11-24T00:00", "2026-11-26T00:00", (24, 26)),
        (UTC_DAYS, "2026-11-24T15:00", "2026-11-26T03:00", (24, 26)),
        (UTC_DAYS, "2026-11-24T00:00", "2026-11-26T23:59", (24, 26)),
        (UTC_DAYS, "2026-11-24T00:00", "2026-11-24T00:00", (24, 24)),
        # Plain dates, which Airflow makes midnights in UTC of.
        (BERLIN, "2026-11-24T00:00", "2026-11-26T00:00", (24, 26)),
        (NEW_YORK, "2026-11-24T00:00", "2026-11-26T00:00", (24, 26)),
        # Midnights of the zone, as a browser there sends them.
        (BERLIN, "2026-11-23T23:00", "2026-11-25T23:00", (24, 26)),
        (NEW_YORK, "2026-11-24T05:00", "2026-11-26T05:00", (24, 26)),
        # Whoever looks for the run with this logical date: also one whose day begins with it …
        (BERLIN, "2026-11-23T23:00", "2026-11-23T23:00", (24, 24)),
        # … and one that was started by hand, or for an older timetable.
        (UTC_DAYS, "2026-11-24T14:37", "2026-11-24T14:37", None),
        (BERLIN, "2026-11-24T03:00", "2026-11-24T03:00", None),
    ],
)
def test_every_day_that_is_named_gets_a_run(
    calendar: DayCalendar, first: str, last: str, days: tuple[int, int] | None
) -> None:
    found, run = [], next_named(calendar, None, at(first), at(last))
    while run:
        found.append(run.day)
        assert calendar.is_complete(run.day, run.run_after)
        assert not calendar.is_complete(run.day, run.run_after - timedelta(seconds=2))
        run = next_named(calendar, run.day, at(first), at(last))
    assert found == ([date(2026, 11, day) for day in range(days[0], days[1] + 1)] if days else [])


@given(st.dates(date(2020, 1, 1), date(2060, 1, 1)), st.sampled_from(ZONES))
def test_a_day_is_named_by_its_date_and_by_its_beginning(day: date, zone: str) -> None:
    calendar = DayCalendar(zone)
    assert named_day(calendar, datetime(day.year, day.month, day.day, tzinfo=UTC)) == day
    assert named_day(calendar, calendar.start_of(day)) == day
