"""Where days begin and end, and when they are complete."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.day_calendar import DayCalendar

BERLIN = DayCalendar("Europe/Berlin")


@pytest.mark.parametrize(
    ("calendar", "day", "start", "end"),
    [
        (DayCalendar(), date(2026, 2, 28), "2026-02-28T00:00", "2026-03-01T00:00"),
        (DayCalendar("Asia/Tokyo"), date(2026, 3, 5), "2026-03-04T15:00", "2026-03-05T15:00"),
        # The clock is put forward on this day: it has 23 hours.
        (BERLIN, date(2026, 3, 29), "2026-03-28T23:00", "2026-03-29T22:00"),
        (BERLIN, date(2026, 10, 25), "2026-10-24T22:00", "2026-10-25T23:00"),
    ],
)
def test_a_day_is_cut_at_midnight_of_its_time_zone(
    calendar: DayCalendar, day: date, start: str, end: str
) -> None:
    assert calendar.start_of(day) == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert calendar.end_of(day) == datetime.fromisoformat(end).replace(tzinfo=UTC)


def test_a_day_is_complete_some_time_after_its_end() -> None:
    calendar = DayCalendar("Europe/Berlin", timedelta(hours=5))
    day = date(2026, 3, 28)
    # By the wall clock, though an hour is missing before it.
    at = datetime(2026, 3, 29, 3, tzinfo=UTC)
    assert calendar.complete_at(day) == at
    assert calendar.is_complete(day, at)
    assert not calendar.is_complete(day, at - timedelta(seconds=1))
    assert calendar.last_complete(at) == day
    assert calendar.last_complete(at - timedelta(seconds=1)) == day - timedelta(days=1)


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati"]),
)
def test_every_moment_is_in_one_day(moment: datetime, zone: str) -> None:
    calendar = DayCalendar(zone)
    day = calendar.day_of(moment)
    assert calendar.start_of(day) <= moment < calendar.end_of(day)
