from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.day_calendar import DayCalendar
from pipelines.errors import ConfigError
from pipelines.run import (
    attempt_owner,
    make_version,
    parse_version,
    require_complete,
    resolve_run_date,
    run_type_of,
)

UTC_DAYS = DayCalendar()
TOKYO, LOS_ANGELES = DayCalendar("Asia/Tokyo"), DayCalendar("America/Los_Angeles")
#: Of the run that starts on 6 March, 03:00 UTC.
INTERVAL_START = datetime(2026, 3, 5, tzinfo=UTC)
AFTER = datetime(2026, 3, 6, 14, 37, tzinfo=UTC)
dates = st.dates(min_value=date(1995, 1, 1), max_value=date(2200, 1, 1))
attempts = st.integers(1, 9999)


@pytest.mark.parametrize(
    ("param", "interval_start", "run_after", "calendar", "expected"),
    [
        ("2026-01-02", INTERVAL_START, AFTER, UTC_DAYS, date(2026, 1, 2)),
        (None, INTERVAL_START, AFTER, UTC_DAYS, date(2026, 3, 5)),
        ("", INTERVAL_START, AFTER, UTC_DAYS, date(2026, 3, 5)),
        ("2026-01-02", None, AFTER, UTC_DAYS, date(2026, 1, 2)),
        # Without an interval: the day before, never the one that is going on.
        (None, None, AFTER, UTC_DAYS, date(2026, 3, 5)),
        (None, None, datetime(2026, 3, 6, tzinfo=UTC), UTC_DAYS, date(2026, 3, 5)),
        (None, None, datetime(2026, 3, 5, 23, 59, tzinfo=UTC), UTC_DAYS, date(2026, 3, 4)),
        # The date is that of the data's time zone, wherever the scheduler's clock is.
        (
            None,
            None,
            datetime(2026, 3, 7, 1, tzinfo=timezone(timedelta(hours=8))),
            UTC_DAYS,
            date(2026, 3, 5),
        ),
        # In Tokyo it is 00:30 on 7 March, in Los Angeles 07:30 on the 6th.
        (None, None, datetime(2026, 3, 6, 15, 30, tzinfo=UTC), TOKYO, date(2026, 3, 6)),
        (None, None, datetime(2026, 3, 6, 15, 30, tzinfo=UTC), LOS_ANGELES, date(2026, 3, 5)),
        (None, TOKYO.start_of(date(2026, 3, 5)), AFTER, TOKYO, date(2026, 3, 5)),
        # The day counts as complete only from six o'clock on.
        (
            None,
            None,
            datetime(2026, 3, 6, 5, 59, tzinfo=UTC),
            DayCalendar(complete_after=timedelta(hours=6)),
            date(2026, 3, 4),
        ),
    ],
)
def test_run_date(
    param: str | None,
    interval_start: datetime | None,
    run_after: datetime,
    calendar: DayCalendar,
    expected: date,
) -> None:
    assert resolve_run_date(param, interval_start, run_after, calendar) == expected


@pytest.mark.parametrize("param", ["yesterday", "2026-02-30", "05.03.2026"])
def test_a_wrong_run_date_is_named(param: str) -> None:
    with pytest.raises(ConfigError, match=f"'{param}' is not a date"):
        resolve_run_date(param, INTERVAL_START, AFTER, UTC_DAYS)


def test_a_run_date_that_has_not_ended_is_refused_unless_its_part_is_asked_for() -> None:
    today = AFTER.date()
    require_complete(date(2026, 3, 5), UTC_DAYS, AFTER)
    with pytest.raises(ConfigError) as error:
        require_complete(today, UTC_DAYS, AFTER)
    assert str(error.value) == (
        "run_date 2026-03-06 has not ended: it is complete at 2026-03-07 00:00 UTC. The last "
        "complete day is 2026-03-05; the parameter partial_day builds from the part of the day "
        "that has passed"
    )
    require_complete(today, UTC_DAYS, AFTER, partial_day=True)


@pytest.mark.parametrize("partial_day", [False, True])
def test_a_run_date_in_the_future_is_refused(partial_day: bool) -> None:
    with pytest.raises(ConfigError, match="run_date 2026-03-07 is in the future"):
        require_complete(date(2026, 3, 7), UTC_DAYS, AFTER, partial_day=partial_day)


@given(dates, st.floats(0, 86_399))
def test_what_no_date_was_given_for_is_complete(day: date, second: float) -> None:
    """On every day, also those on which the clock is changed, and at every time of it."""
    for calendar in (
        UTC_DAYS,
        TOKYO,
        LOS_ANGELES,
        DayCalendar("Europe/Berlin", timedelta(hours=3)),
    ):
        now = calendar.start_of(day) + timedelta(seconds=second)
        run_date = resolve_run_date(None, None, now, calendar)
        require_complete(run_date, calendar, now)
        assert calendar.end_of(run_date) <= now
        assert not calendar.is_complete(run_date + timedelta(days=1), now)


def test_a_run_that_starts_over_is_another_attempt() -> None:
    assert attempt_owner("manual__1", 0) == "manual__1"
    assert len({attempt_owner("manual__1", times) for times in range(3)}) == 3


@given(dates, attempts, dates, attempts)
def test_versions_order_by_date_then_attempt(d1: date, a1: int, d2: date, a2: int) -> None:
    assert (make_version(d1, a1) < make_version(d2, a2)) == ((d1, a1) < (d2, a2))


@given(dates, attempts)
def test_version_round_trip_and_range(day: date, attempt: int) -> None:
    version = make_version(day, attempt)
    assert parse_version(version) == (day, attempt)
    # Exact as an int64 and also where a reader keeps numbers as doubles (Lua, JavaScript).
    assert 0 < version < 2**53


@pytest.mark.parametrize("attempt", [0, -1, 10_000])
def test_attempts_have_a_range(attempt: int) -> None:
    with pytest.raises(ValueError, match="attempt"):
        make_version(date(2026, 1, 1), attempt)


@pytest.mark.parametrize("number", [0, 1, 20260101, 20261301_0001])
def test_other_numbers_are_no_versions(number: int) -> None:
    with pytest.raises(ValueError, match=r"version|match|unconverted|month"):
        parse_version(number)


@pytest.mark.parametrize(
    ("airflow", "ours"),
    [
        ("scheduled", "scheduled"),
        ("backfill", "backfill"),
        ("manual", "manual"),
        ("asset_triggered", "manual"),
    ],
)
def test_run_types(airflow: str, ours: str) -> None:
    assert run_type_of(airflow) == ours
