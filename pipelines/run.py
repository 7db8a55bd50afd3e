"""Which date a run is for, and which version it builds: pure rules.

A version is an int64 ``YYYYMMDDNNNN``: the run date, then the attempt (1 to 9999) for that date.
Comparing two versions therefore compares run dates first and attempts second, so a backfill of an
old date never looks newer than what is live, also to a server that serves "the highest number".
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipelines.day_calendar import DayCalendar
from pipelines.errors import ConfigError
from pipelines.models_config import Unit

RunType = Literal["scheduled", "manual", "backfill"]
#: Whether a run's versions go live: only if nothing newer is, whatever is live, or not at all.
ActivateMode = Literal["if_newest", "always", "never"]

MAX_ATTEMPT = 9999


class RunPlan(BaseModel):
    """What every task of one run must agree on; decided once, by the run's first task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_date: date
    version: int
    run_type: RunType
    run_id: str
    units: tuple[Unit, ...]
    activate: ActivateMode = "if_newest"
    #: Whether the run date may still be going on: it is built from the part that has passed.
    partial_day: bool = False
    #: Why somebody started the run, in their words.
    note: str = ""
    #: Only events of so many days up to the run date are read; None: all.
    training_days: int | None = None
    #: Whether units are trained also if nothing is new for them.
    train_again: bool = False


def resolve_run_date(
    run_date_param: str | None,
    data_interval_start: datetime | None,
    run_after: datetime,
    calendar: DayCalendar,
) -> date:
    """Return the date that a run is for: the last day that is complete when it starts.

    The explicit parameter wins; else the day on which the data interval starts; else the last day
    that is complete at ``run_after``, which always exists. ``logical_date`` and ``ds`` are not
    used: they are absent from runs that were triggered without a date.

    Raises:
        ConfigError: the parameter is not a ``YYYY-MM-DD`` date.
    """
    if run_date_param:
        try:
            return date.fromisoformat(run_date_param)
        except ValueError as error:
            raise ConfigError(
                f"run_date {run_date_param!r} is not a date: write it as YYYY-MM-DD"
            ) from error
    if data_interval_start:
        return calendar.day_of(data_interval_start)
    return calendar.last_complete(run_after)


def require_complete(
    run_date: date, calendar: DayCalendar, now: datetime, *, partial_day: bool = False
) -> None:
    """Refuse a run date that is not complete; with `partial_day` only one that has not begun.

    Raises:
        ConfigError: it is not complete, or has not begun.
    """
    if calendar.is_complete(run_date, now):
        return
    complete_at = f"{calendar.complete_at(run_date):%Y-%m-%d %H:%M} UTC"
    if calendar.start_of(run_date) > now:
        raise ConfigError(
            f"run_date {run_date} is in the future: it is complete at {complete_at}; the last "
            f"complete day is {calendar.last_complete(now)}"
        )
    if not partial_day:
        raise ConfigError(
            f"run_date {run_date} has not ended: it is complete at {complete_at}. The last "
            f"complete day is {calendar.last_complete(now)}; the parameter partial_day builds from "
            "the part of the day that has passed"
        )


def attempt_owner(run_id: str, clear_number: int) -> str:
    """Return what a version is reserved for: the run, and anew each time that it starts over.

    A task's retry, or clearing what comes after the plan, stays within the attempt.
    """
    return f"{run_id} #{clear_number}" if clear_number else run_id


def run_type_of(airflow_run_type: str) -> RunType:
    """Return what kind of run it is; whatever a person or another system started is manual."""
    match airflow_run_type:
        case "scheduled" | "backfill":
            return airflow_run_type
        case _:
            return "manual"


def make_version(run_date: date, attempt: int) -> int:
    """Return the version of the `attempt`-th (1 to 9999) build for `run_date`.

    Raises:
        ValueError: the attempt is out of range.
    """
    if not 1 <= attempt <= MAX_ATTEMPT:
        raise ValueError(f"attempt {attempt} is not between 1 and {MAX_ATTEMPT}")
    return int(f"{run_date:%Y%m%d}{attempt:04d}")


def parse_version(version: int) -> tuple[date, int]:
    """Return the run date and the attempt of a version.

    Raises:
        ValueError: the number is not a version that :func:`make_version` makes.
    """
    text = str(version)
    if len(text) != 12:
        raise ValueError(f"{version} is not a version: expected YYYYMMDDNNNN")
    return datetime.strptime(text[:8], "%Y%m%d").replace(tzinfo=UTC).date(), int(text[8:])
