"""When the daily run starts by itself: a cron expression in the time zone of the data. Pure rules.

A run builds one whole day, the last that is complete when it starts. So a schedule may leave days
out, as a weekly one does (the next run reads them too), but it can't start two runs for one day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

from pipelines.day_calendar import DayCalendar

#: As Airflow spells them; the others of its presets are no schedule of days.
PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}
# Where gaps are looked for: every weekday, month, and change of the clock is in these days.
_FIRST = date(2027, 1, 1)
_DAYS = 366
_FIELDS = 5


@dataclass(frozen=True)
class Schedule:
    """The starts of a cron expression or a preset, by the clock of a calendar's time zone."""

    expression: str
    calendar: DayCalendar

    def next_start(self, moment: datetime) -> datetime:
        """Return the first start after a moment, in UTC."""
        return self._neighbour(moment, forward=True)

    def latest_start(self, moment: datetime) -> datetime:
        """Return the last start at a moment or before it, in UTC."""
        return self._neighbour(moment + timedelta(microseconds=1), forward=False)

    def day_of_start(self, start: datetime) -> date:
        """Return the day that the run of a start builds."""
        return self.calendar.last_complete(start)

    def start_of_day(self, day: date) -> datetime:
        """Return the first start from which on a day is complete."""
        return self.next_start(self.calendar.complete_at(day) - timedelta(microseconds=1))

    def longest_gap_days(self) -> int:
        """Return how many days lie between the days of two runs, at most."""
        start = self.next_start(self.calendar.start_of(_FIRST))
        end = start + timedelta(days=_DAYS)
        longest = timedelta(0)
        while start < end:
            following = self.next_start(start)
            longest = max(longest, self.day_of_start(following) - self.day_of_start(start))
            start = following
        return longest.days

    def require_whole_days(self) -> None:
        """Refuse what is no schedule of whole days.

        Raises:
            ValueError: the expression is none, or it starts several runs for one day.
        """
        try:
            fields = croniter(self._cron).expanded
            if len(fields) != _FIELDS:
                raise ValueError(
                    f"{self.expression!r} is no schedule: write a cron expression of five fields, "
                    "or @daily, @weekly, @monthly"
                )
            self.next_start(self.calendar.start_of(_FIRST))
        except CroniterError as error:
            raise ValueError(f"{self.expression!r} is no cron expression: {error}") from error
        minutes, hours = fields[:2]
        if any(len(field) > 1 or field[0] == "*" for field in (minutes, hours)):
            raise ValueError(
                f"{self.expression!r} starts several runs a day, and a run builds a whole day: "
                "choose one start a day at most, such as '0 3 * * *'"
            )

    @property
    def _cron(self) -> str:
        return PRESETS.get(self.expression, self.expression)

    def _neighbour(self, moment: datetime, *, forward: bool) -> datetime:
        # By the wall clock: croniter does not know of changes of the clock. Of a time that the
        # clock skips, the instant that would have been it is taken; of one that comes twice, the
        # first.
        zone = ZoneInfo(self.calendar.time_zone)
        wall = moment.astimezone(zone).replace(tzinfo=None)
        cron = croniter(self._cron, wall)
        while True:
            found = cron.get_next(datetime) if forward else cron.get_prev(datetime)
            start: datetime = found.replace(tzinfo=zone).astimezone(UTC)
            if (start > moment) if forward else (start < moment):
                return start
