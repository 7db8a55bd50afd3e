"""The timetable of the daily run. Every process of Airflow loads it: it imports next to nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from airflow.utils.types import DagRunType
from pendulum import DateTime

from pipelines.airflow.run_days import next_named, next_scheduled
from pipelines.day_calendar import DayCalendar
from pipelines.schedule import Schedule


class DataDayTimetable(Timetable):
    """Runs for whole days of the data, each of which starts by a schedule after its day.

    The data interval of a run is one day, from midnight to midnight in the time zone of the data.
    A backfill gets every day that it names, whatever the schedule leaves out, and also when there
    is no schedule (`expression` is None), in which case no run starts by itself.
    """

    def __init__(self, expression: str | None, calendar: DayCalendar) -> None:
        self._expression = expression
        self._calendar = calendar
        self._schedule = None if expression is None else Schedule(expression, calendar)
        self.can_be_scheduled = expression is not None
        zone = calendar.time_zone
        self.description = (
            f"By hand only; a run builds a whole day ({zone})"
            if expression is None
            else f"{expression} by the clock of {zone}; builds the last complete day"
        )

    @property
    def summary(self) -> str:
        """The schedule, as the UI shows it."""
        return self._expression or "by hand"

    def validate(self) -> None:
        """Refuse a schedule that does not start at most one run a day.

        Raises:
            AirflowTimetableInvalid: with the reason.
        """
        if self._schedule:
            try:
                self._schedule.require_whole_days()
            except ValueError as error:
                raise AirflowTimetableInvalid(str(error)) from error

    def serialize(self) -> dict[str, Any]:
        """Return what :meth:`deserialize` makes an equal timetable of; JSON."""
        return {
            "expression": self._expression,
            "time_zone": self._calendar.time_zone,
            "complete_after_seconds": self._calendar.complete_after.total_seconds(),
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> DataDayTimetable:
        """Make the timetable that :meth:`serialize` described."""
        delay = timedelta(seconds=data["complete_after_seconds"])
        return cls(data["expression"], DayCalendar(data["time_zone"], delay))

    def __eq__(self, other: object) -> bool:
        """Whether the other starts the same runs."""
        if not isinstance(other, DataDayTimetable):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        """By the same values."""
        return hash(self._key)

    @property
    def _key(self) -> tuple[str | None, DayCalendar]:
        return (self._expression, self._calendar)

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """Return the last day that is complete when somebody starts a run."""
        return self._interval(self._calendar.last_complete(run_after))

    def next_dagrun_info(
        self,
        *,
        last_automated_data_interval: DataInterval | None,
        restriction: TimeRestriction,
    ) -> DagRunInfo | None:
        """Return the next run after the last one of the schedule or a backfill.

        A run of an older timetable counts for the day on which its interval began.
        """
        last, calendar = last_automated_data_interval, self._calendar
        last_day = None if last is None else calendar.day_of(last.start)
        earliest, latest, catchup = restriction
        if catchup and earliest is not None and latest is not None:
            # Both bounds, and all between them: a backfill, or who else looks for runs by date.
            run = next_named(calendar, last_day, earliest, latest)
        elif self._schedule is None:
            run = None
        else:
            now = None if catchup else datetime.now(UTC)
            run = next_scheduled(self._schedule, last_day, earliest, now)
            if run and latest is not None and calendar.start_of(run.day) > latest:
                run = None
        if run is None:
            return None
        return DagRunInfo(pendulum.instance(run.run_after), self._interval(run.day))

    def generate_run_id(
        self,
        *,
        run_type: DagRunType,
        run_after: DateTime,
        data_interval: DataInterval | None,
        **extra: Any,
    ) -> str:
        """Return a run's name: by its day if the schedule starts it, else by its start.

        When the delay of a day's end is changed, a second run may start as of the same time.
        """
        if run_type != DagRunType.SCHEDULED or data_interval is None:
            return super().generate_run_id(
                run_type=run_type, run_after=run_after, data_interval=data_interval, **extra
            )
        start = self._calendar.start_of(self._calendar.day_of(data_interval.start))
        local = start.astimezone(ZoneInfo(self._calendar.time_zone))
        return run_type.generate_run_id(suffix=local.isoformat())

    def _interval(self, day: date) -> DataInterval:
        start, end = self._calendar.start_of(day), self._calendar.end_of(day)
        return DataInterval(pendulum.instance(start), pendulum.instance(end))
