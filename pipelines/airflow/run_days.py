"""Which day the next run builds, and when it may start: what the timetable answers. Pure rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from pipelines.day_calendar import DayCalendar
from pipelines.schedule import Schedule

_DAY = timedelta(days=1)
# Airflow names a backfill's runs by the time from which on they may start, and leaves a run out in
# silence if an older one has its name. Before runs were of whole days, they started at a full hour.
_APART = timedelta(seconds=1)


@dataclass(frozen=True)
class DayRun:
    """A run for one day, which may start at `run_after` (UTC)."""

    day: date
    run_after: datetime


def next_scheduled(
    schedule: Schedule, last_day: date | None, earliest: datetime | None, now: datetime | None
) -> DayRun | None:
    """Return the next run of a schedule, which is for a later day than any before.

    Nights that were missed are not made up for: the next run is for the newest day that a start
    up to `now` could build, or, when that day was built, for the next one. Without `now`, it is
    the run that follows `last_day`. No day that begins before `earliest` gets one. None: without
    any of the three there is no first day.
    """
    calendar = schedule.calendar
    after_last = None if last_day is None else last_day + _DAY
    first_allowed = None if earliest is None else _first_from(calendar, earliest)
    first = max(filter(None, (after_last, first_allowed)), default=None)
    start = None if now is None else schedule.latest_start(now)
    if first is not None and (start is None or schedule.day_of_start(start) < first):
        start = schedule.start_of_day(first)
    return None if start is None else DayRun(schedule.day_of_start(start), start)


def next_named(
    calendar: DayCalendar, last_day: date | None, first: datetime, last: datetime
) -> DayRun | None:
    """Return the run after the one for `last_day` among all days from `first` to `last`.

    Each bound names a day, see :func:`named_day`, and both days belong to them; a schedule leaves
    none of them out. A run may start as soon as its day is complete. One moment as both bounds is
    a day only if the day begins with it: so Airflow asks for the run that has this logical date.
    """
    day = named_day(calendar, first)
    if first == last and first not in (calendar.start_of(day), _midnight_utc(day)):
        return None
    if last_day is not None:
        day = last_day + _DAY
    if day > named_day(calendar, last):
        return None
    return DayRun(day, calendar.complete_at(day) + _APART)


def named_day(calendar: DayCalendar, bound: datetime) -> date:
    """Return the day that a bound of a backfill names.

    That is the day that it falls on in the data's time zone. But midnight in UTC is what Airflow
    makes of a plain date, and names this date in any time zone.
    """
    in_utc = bound.astimezone(UTC)
    if in_utc == _midnight_utc(in_utc.date()):
        return in_utc.date()
    return calendar.day_of(bound)


def _first_from(calendar: DayCalendar, moment: datetime) -> date:
    day = calendar.day_of(moment)
    return day if calendar.start_of(day) >= moment else day + _DAY


def _midnight_utc(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
