from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.run import (
    attempt_owner,
    end_of_day,
    make_version,
    parse_version,
    require_past,
    resolve_run_date,
    run_type_of,
)

INTERVAL_END = datetime(2026, 3, 5, 3, tzinfo=UTC)
AFTER = datetime(2026, 3, 6, 14, 37, tzinfo=UTC)
dates = st.dates(min_value=date(1995, 1, 1), max_value=date(2200, 1, 1))
attempts = st.integers(1, 9999)


@pytest.mark.parametrize(
    ("param", "interval_end", "run_after", "expected"),
    [
        ("2026-01-02", INTERVAL_END, AFTER, date(2026, 1, 2)),
        (None, INTERVAL_END, AFTER, date(2026, 3, 5)),
        ("", INTERVAL_END, AFTER, date(2026, 3, 5)),
        (None, None, AFTER, date(2026, 3, 6)),
        ("2026-01-02", None, AFTER, date(2026, 1, 2)),
        # The date is the UTC one, wherever the scheduler's clock is.
        (
            None,
            None,
            datetime(2026, 3, 7, 1, tzinfo=timezone(timedelta(hours=8))),
            date(2026, 3, 6),
        ),
    ],
)
def test_run_date(
    param: str | None, interval_end: datetime | None, run_after: datetime, expected: date
) -> None:
    assert resolve_run_date(param, interval_end, run_after) == expected


@pytest.mark.parametrize("param", ["yesterday", "2026-02-30", "05.03.2026"])
def test_a_wrong_run_date_is_named(param: str) -> None:
    with pytest.raises(ConfigError, match=f"'{param}' is not a date"):
        resolve_run_date(param, INTERVAL_END, AFTER)


def test_a_run_date_in_the_future_is_refused() -> None:
    today = date(2026, 3, 5)
    require_past(today, today)
    with pytest.raises(ConfigError, match="run_date 2026-03-06 is in the future: today is"):
        require_past(date(2026, 3, 6), today)


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


def test_end_of_day_is_exclusive() -> None:
    assert end_of_day(date(2026, 2, 28)) == datetime(2026, 3, 1, tzinfo=UTC)


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
