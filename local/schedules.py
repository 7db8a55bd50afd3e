"""Which DAGs `make up` has run by their schedules, and what it says of each.

It switches a DAG on once: what somebody pauses afterwards stays paused. The daily run is left off
while there is nothing that it could read, since every one of its runs would fail.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from local.airflow_api import AirflowApi, NextRun
from local.dag_run import DAG_ID
from local.home import Home, write_private
from pipelines.config import DataConfig, PipelineConfig
from pipelines.data.identity import MovielensFolder, Origin
from pipelines.lake import Lake

#: What runs by a schedule, and what for; of the daily run is told when it starts.
SCHEDULED = {
    DAG_ID: "",
    "online_check": "every hour: repairs what the services lost, checks the age of what is live",
    "retention": "every day: removes versions that nothing needs",
}
_BY_HAND = "no schedule (operations.schedule): a run starts by hand only"


@dataclass(frozen=True)
class Obstacle:
    """Why the next run would fail, and what to do."""

    reason: str
    #: Whether nothing but an answer to it can make a run succeed.
    is_certain: bool


class _SwitchedOn(BaseModel):
    """The DAGs that `make up` has switched on so far."""

    model_config = ConfigDict(frozen=True)

    dags: frozenset[str] = frozenset()


def switch_on(api: AirflowApi, home: Home, config: PipelineConfig) -> list[str]:
    """Unpause what is to run by its schedule; return a line for each DAG, aligned."""
    now = datetime.now(UTC)
    file = home.airflow / "switched_on.json"
    before = _SwitchedOn.model_validate_json(file.read_text()) if file.exists() else _SwitchedOn()
    known = set(before.dags)
    lines = []
    for dag_id, purpose in SCHEDULED.items():
        obstacle = None
        if dag_id == DAG_ID and config.schedule:
            day = config.schedule.day_of_start(config.schedule.next_start(now))
            obstacle = find_obstacle(config.data, Lake(str(home.lake)), day)
        was_on = not api.is_paused(dag_id)
        is_on = should_be_on(is_on=was_on, was_switched_on=dag_id in known, obstacle=obstacle)
        if is_on:
            known.add(dag_id)
        elif was_on:
            known.discard(dag_id)
        if is_on != was_on:
            api.set_paused(dag_id, not is_on)
        if obstacle:
            text = obstacle.reason
        elif not is_on:
            text = "by hand; unpause it in Airflow to have it go on"
        else:
            text = purpose or describe_next(config, api.next_run(dag_id), now)
        lines.append(f"{dag_id:<18}{'on' if is_on else 'paused':<8}{text}")
    write_private(file, _SwitchedOn(dags=frozenset(known)).model_dump_json())
    return lines


def should_be_on(*, is_on: bool, was_switched_on: bool, obstacle: Obstacle | None) -> bool:
    """Whether a DAG is to be on; `was_switched_on` by an earlier `make up`.

    Off although it was switched on, somebody has paused it. On although its data have come to an
    end, somebody may be about to bring more.
    """
    if obstacle:
        return is_on and not obstacle.is_certain
    return is_on or not was_switched_on


def find_obstacle(config: DataConfig, lake: Lake, next_day: date) -> Obstacle | None:
    """Return why a run for `next_day` would fail; None if nothing is known against it."""
    events = config.events
    # Read as a pattern, a bracket in the lake's own path would be none.
    pattern = events.resolve(Lake(glob.escape(lake.root)), "*")
    is_missing = _is_local(pattern) and not _matches(pattern)
    if events.is_landed and is_missing:
        return Obstacle(
            "no data yet: bring some in ('make run', 'ferry data --help'), then 'make up' again",
            is_certain=True,
        )
    if is_missing:
        return Obstacle(
            f"no file matches data.events.path, {events.path}: bring one there, then 'make up' "
            "again",
            is_certain=True,
        )
    origin = Origin.of_landing(lake) if events.is_landed else None
    if origin and isinstance(origin.brought, MovielensFolder) and origin.last_day < next_day:
        folder = origin.brought.folder
        return Obstacle(
            f"MovieLens of {folder} ends on {origin.last_day}, and the next run, for {next_day}, "
            f"fails without newer events: bring them in with 'ferry data import-movielens' before "
            "it starts, and unpause it in Airflow",
            is_certain=False,
        )
    return None


def describe_next(config: PipelineConfig, due: NextRun | None, now: datetime) -> str:
    """Return when the daily run starts next and for which day; `due` as Airflow knows it."""
    if config.schedule is None:
        return _BY_HAND
    calendar = config.data.calendar
    start = config.schedule.next_start(now)
    text = f"next run {start:%Y-%m-%d %H:%M} UTC, for {config.schedule.day_of_start(start)}"
    if due and due.run_after <= now:
        return f"a run for {calendar.day_of(due.interval_start)} starts now; {text}"
    return text


def _is_local(pattern: str) -> bool:
    """Whether what Spark finds by the pattern can be looked for here."""
    return "://" not in pattern and "{" not in pattern


def _matches(pattern: str) -> bool:
    """Whether a pattern names a file, or a folder with a file that Spark would read in it."""
    root = Path(pattern).anchor
    found = Path(root or ".").glob(pattern.removeprefix(root))
    return any(
        path.is_file() or any(not inside.name.startswith((".", "_")) for inside in path.iterdir())
        for path in found
    )
