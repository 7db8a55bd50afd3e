"""Which date a run is for, and which version it builds: pure rules.

A version is an int64 ``YYYYMMDDNNNN``: the run date, then the attempt (1 to 9999) for that date.
Comparing two versions therefore compares run dates first and attempts second, so a backfill of an
old date never looks newer than what is live, also to a server that serves "the highest number".
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

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
    #: Why a person started the run, in their words.
    note: str = ""
    #: The models learn from this many days before the end of the run date; None: from all.
    training_days: int | None = None


def resolve_run_date(
    run_date_param: str | None, data_interval_end: datetime | None, run_after: datetime
) -> date:
    """Return the date that a run is for.

    The explicit parameter wins; else the end of the data interval; else ``run_after``, which
    always exists. ``logical_date`` and ``ds`` are not used: they are absent from runs that were
    triggered without a date, and for a manual run they name another day than the interval's end.

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
    return (data_interval_end or run_after).astimezone(UTC).date()


def run_type_of(airflow_run_type: str) -> RunType:
    """Return what kind of run it is; whatever a person or another system started is manual."""
    match airflow_run_type:
        case "scheduled" | "backfill":
            return airflow_run_type
        case _:
            return "manual"


def end_of_day(run_date: date) -> datetime:
    """Return the first instant (UTC) that a run for `run_date` must not see."""
    return datetime.combine(run_date + timedelta(days=1), time.min, tzinfo=UTC)


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
