"""The page "Releases": each unit, what is live of it, how it was judged, and how it got there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pipelines.config import PipelineConfig
from pipelines.errors import ReleaseError
from pipelines.models_config import UNITS
from pipelines.release.context import ReleaseContext
from pipelines.release.desired import DesiredState
from pipelines.release.origin import CurrentLake, read_current_lake
from pipelines.release.status import UnitStatus, unit_status
from pipelines.report.frame import render_in_frame
from pipelines.wording import age, verdict_counts

_MOVES = 10


@dataclass(frozen=True)
class UnitReleases:
    """One unit's part of the page; `error` says why there is no status."""

    unit: str
    status: UnitStatus | None
    #: The last moves, newest first.
    moves: Sequence[DesiredState] = ()
    error: str | None = None

    @property
    def gates(self) -> str:
        """How many gates gave which verdict."""
        return verdict_counts(self.status.gates) if self.status else ""

    @property
    def data(self) -> str:
        """The last day of the data, and how long ago that was."""
        if not self.status or self.status.data_date is None or self.status.data_age_days is None:
            return ""
        return f"to {self.status.data_date}, {age(self.status.data_age_days)}"


def collect_releases(context: ReleaseContext, config: PipelineConfig) -> list[UnitReleases]:
    """Return the units that are live, retired or enabled, in their fixed order.

    Raises:
        ServiceError: Redis or object storage does not answer.
    """
    wanted = set(config.models.enabled_units())
    lake = read_current_lake(context.settings.lake)
    today = config.data.calendar.day_of(datetime.now(UTC))
    return [
        _of_unit(context, unit, lake, today)
        for unit in UNITS
        if unit in wanted or context.online.pointers.get(unit) or context.registry.active(unit)
    ]


def _of_unit(context: ReleaseContext, unit: str, lake: CurrentLake, today: date) -> UnitReleases:
    try:
        moves = list(itertools.islice(context.registry.newest_moves(unit), _MOVES))
        return UnitReleases(unit, unit_status(context, unit, lake, today), moves)
    except ReleaseError as error:
        # A broken document of one unit must not hide the others.
        return UnitReleases(unit, None, error=str(error))


def render_releases(units: Sequence[UnitReleases], base: str) -> str:
    """Return the page; `base` is the path under which Airflow itself is."""
    return render_in_frame("releases.html.jinja", base, "releases", {"units": units})
