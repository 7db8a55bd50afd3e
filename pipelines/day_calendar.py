"""The days of the data: where they begin and end, and which of them are complete. Pure rules.

A day is cut where its files are cut: at midnight in the time zone of the data. It counts as
complete some time after its end, when the last of its rows have arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class DayCalendar:
    """The days of one time zone; a day is complete `complete_after` its end, by the wall clock.

    (By the wall clock, so that the day on which the clock is changed is no exception.)
    """

    time_zone: str = "UTC"
    complete_after: timedelta = timedelta(0)

    def day_of(self, moment: datetime) -> date:
        """Return the day that a moment (with a time zone) falls on."""
        return self._wall(moment).date()

    def start_of(self, day: date) -> datetime:
        """Return the first instant of a day, in UTC."""
        return self._instant(datetime.combine(day, time.min))

    def end_of(self, day: date) -> datetime:
        """Return the first instant after a day, in UTC; what a run for it must not see."""
        return self.start_of(day + timedelta(days=1))

    def complete_at(self, day: date) -> datetime:
        """Return from which moment on (UTC) a day counts as complete."""
        return self._instant(
            datetime.combine(day + timedelta(days=1), time.min) + self.complete_after
        )

    def is_complete(self, day: date, now: datetime) -> bool:
        """Whether a day counts as complete at a moment."""
        return day <= self.last_complete(now)

    def last_complete(self, now: datetime) -> date:
        """Return the newest day that counts as complete at a moment."""
        return (self._wall(now) - self.complete_after).date() - timedelta(days=1)

    def _wall(self, moment: datetime) -> datetime:
        return moment.astimezone(ZoneInfo(self.time_zone)).replace(tzinfo=None)

    def _instant(self, wall: datetime) -> datetime:
        return wall.replace(tzinfo=ZoneInfo(self.time_zone)).astimezone(UTC)
