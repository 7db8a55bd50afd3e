"""When runs start, and the day that each of them builds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.day_calendar import DayCalendar
from pipelines.schedule import Schedule

UTC_DAYS = DayCalendar()
BERLIN = DayCalendar("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "calendar", "moment", "start", "day"),
    [
        ("0 3 * * *", UTC_DAYS, "2026-03-05T03:00", "2026-03-06T03:00", date(2026, 3, 5)),
        ("0 3 * * *", UTC_DAYS, "2026-03-05T02:59", "2026-03-05T03:00", date(2026, 3, 4)),
        ("@daily", UTC_DAYS, "2026-03-05T00:00", "2026-03-06T00:00", date(2026, 3, 5)),
        # 5 March 2026 is a Thursday.
        ("0 6 * * 1", UTC_DAYS, "2026-03-05T00:00", "2026-03-09T06:00", date(2026, 3, 8)),
        ("@weekly", UTC_DAYS, "2026-03-05T00:00", "2026-03-08T00:00", date(2026, 3, 7)),
        # By the clock of the time zone, summer and winter.
        ("0 3 * * *", BERLIN, "2026-01-05T12:00", "2026-01-06T02:00", date(2026, 1, 5)),
        ("0 3 * * *", BERLIN, "2026-07-05T12:00", "2026-07-06T01:00", date(2026, 7, 5)),
        # A time that the clock skips, and one that comes twice.
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", "2026-03-29T01:30", date(2026, 3, 28)),
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", "2026-10-25T00:30", date(2026, 10, 24)),
        ("30 2 * * *", BERLIN, "2026-10-25T00:30", "2026-10-26T01:30", date(2026, 10, 25)),
        # A day that is complete only at six: a run at three builds the one before.
        (
            "0 3 * * *",
            DayCalendar(complete_after=timedelta(hours=6)),
            "2026-03-05T12:00",
            "2026-03-06T03:00",
            date(2026, 3, 4),
        ),
    ],
)
def test_the_next_start_and_the_day_that_it_builds(
    expression: str, calendar: DayCalendar, moment: str, start: str, day: date
) -> None:
    schedule = Schedule(expression, calendar)
    schedule.require_whole_days()
    assert schedule.next_start(at(moment)) == at(start)
    assert schedule.day_of_start(at(start)) == day
    assert schedule.latest_start(at(start)) == at(start)
    assert schedule.latest_start(at(start) - timedelta(seconds=1)) <= at(moment)


@given(
    st.dates(date(2020, 1, 1), date(2060, 1, 1)),
    st.integers(0, 23),
    st.integers(0, 59),
    st.floats(0, 23.9),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
)
def test_a_daily_schedule_builds_each_day_once(
    first: date, hour: int, minute: int, delay: float, zone: str
) -> None:
    """Also where the clock is changed, at whatever time of the day, and with any delay."""
    calendar = DayCalendar(zone, timedelta(hours=delay))
    schedule = Schedule(f"{minute} {hour} * * *", calendar)
    moment, days = calendar.start_of(first), []
    for _ in range(4):
        moment = schedule.next_start(moment)
        days.append(schedule.day_of_start(moment))
        assert calendar.is_complete(days[-1], moment)
    assert days == [days[0] + timedelta(days=n) for n in range(4)]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("@hourly", "starts several runs a day"),
        ("0 3,15 * * *", "starts several runs a day"),
        ("*/30 3 * * *", "starts several runs a day"),
        ("* * * * *", "starts several runs a day"),
        ("every night", "is no cron expression"),
        ("0 25 * * *", "is no cron expression"),
        ("0 3 30 2 *", "is no cron expression"),
        ("0 3 * * * 15", "is no schedule"),
        ("", "is no cron expression"),
    ],
)
def test_what_is_no_schedule_of_days_is_refused(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Schedule(expression, UTC_DAYS).require_whole_days()


@pytest.mark.parametrize(
    ("expression", "days"), [("0 3 * * *", 1), ("0 3 * * 1-5", 3), ("@weekly", 7), ("@monthly", 31)]
)
def test_the_longest_gap(expression: str, days: int) -> None:
    assert Schedule(expression, BERLIN).longest_gap_days() == days
