"""When the steps of a run were at work, without the start of their processes.

Each leaves its own file in the run's folder, so that tasks in other processes and on other machines
need nothing in common: ``work/<step>[ <unit>].json``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict

from pipelines.config import Settings
from pipelines.lake import RunPaths
from pipelines.run import RunPlan

P = ParamSpec("P")
R = TypeVar("R")


class WorkTime(BaseModel):
    """From when to when (UTC) one step was at work; the last attempt counts."""

    model_config = ConfigDict(frozen=True)

    step: str
    began: datetime
    ended: datetime


def timed(function: Callable[P, R]) -> Callable[P, R]:
    """Record when a step is at work; it has parameters `settings`, `plan` and maybe `unit`."""
    signature = inspect.signature(function)
    name = function.__name__.removesuffix("_step")

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        settings: Settings = given["settings"]
        plan: RunPlan = given["plan"]
        step = f"{name} {given['unit']}" if "unit" in given else name
        began = datetime.now(UTC)
        try:
            return function(*args, **kwargs)
        finally:
            work = WorkTime(step=step, began=began, ended=datetime.now(UTC))
            file = _folder(settings.lake.run(plan.version)) / f"{step}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(work.model_dump_json(), encoding="utf-8")

    return wrapper


def _folder(paths: RunPaths) -> Path:
    return Path(paths.root) / "work"


def work_times(paths: RunPaths) -> list[WorkTime]:
    """Return when the steps of a run were at work, in the order in which they began."""
    found = (WorkTime.model_validate_json(p.read_bytes()) for p in _folder(paths).glob("*.json"))
    return sorted(found, key=lambda work: work.began)


def seconds_at_work(works: Iterable[WorkTime]) -> float:
    """Return for how many seconds at least one step was at work."""
    total = 0.0
    until: datetime | None = None
    for work in sorted(works, key=lambda work: work.began):
        began = max(work.began, until) if until else work.began
        if work.ended > began:
            total += (work.ended - began).total_seconds()
        until = max(work.ended, until) if until else work.ended
    return total
