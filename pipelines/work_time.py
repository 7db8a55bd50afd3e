"""When the steps of a run were at work, and what their Java spent beside the work.

Each leaves its own file in the run's folder, so that tasks in other processes and on other machines
need nothing in common: ``work/<step>[ <unit>].json``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict

from pipelines.config import Settings
from pipelines.lake import RunPaths
from pipelines.run import RunPlan

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

P = ParamSpec("P")
R = TypeVar("R")


class JavaTime(BaseModel):
    """What the Java of a Spark step spent, in seconds.

    `starting` is from its start until the step began, 0 for a later step in the same process;
    `compiling` and `collecting` (garbage) go on beside the work; `tasks` is the sum over all tasks,
    with their Python.
    """

    model_config = ConfigDict(frozen=True)

    starting: float
    compiling: float
    collecting: float
    tasks: float

    def plus(self, other: JavaTime) -> JavaTime:
        """Return what both spent together."""
        return JavaTime(
            starting=self.starting + other.starting,
            compiling=self.compiling + other.compiling,
            collecting=self.collecting + other.collecting,
            tasks=self.tasks + other.tasks,
        )

    def since(self, before: JavaTime) -> JavaTime:
        """Return what was spent since `before`."""
        return JavaTime(
            starting=before.starting,
            compiling=self.compiling - before.compiling,
            collecting=self.collecting - before.collecting,
            tasks=self.tasks - before.tasks,
        )


class WorkTime(BaseModel):
    """From when to when (UTC) one step was at work; the last attempt counts."""

    model_config = ConfigDict(frozen=True)

    step: str
    began: datetime
    ended: datetime
    #: None for a step without Spark.
    java: JavaTime | None = None


_seen_java: set[int] = set()


def java_time(spark: SparkSession) -> JavaTime:
    """Return what this process's Java has spent until now."""
    jvm: Any = spark._jvm
    context: Any = spark.sparkContext
    beans = jvm.java.lang.management.ManagementFactory
    started: int = beans.getRuntimeMXBean().getStartTime()
    is_first = started not in _seen_java
    _seen_java.add(started)
    executors = context._jsc.sc().statusStore().executorList(False)
    tasks = sum(executors.apply(i).totalDuration() for i in range(executors.size()))
    garbage = sum(bean.getCollectionTime() for bean in beans.getGarbageCollectorMXBeans())
    return JavaTime(
        starting=max(0.0, datetime.now(UTC).timestamp() - started / 1000) if is_first else 0.0,
        compiling=beans.getCompilationMXBean().getTotalCompilationTime() / 1000,
        collecting=garbage / 1000,
        tasks=tasks / 1000,
    )


def timed(function: Callable[P, R]) -> Callable[P, R]:
    """Record when a step is at work.

    It has parameters `settings` and `plan`, and maybe `unit` and `spark`.
    """
    signature = inspect.signature(function)
    name = function.__name__.removesuffix("_step")

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        settings: Settings = given["settings"]
        plan: RunPlan = given["plan"]
        step = f"{name} {given['unit']}" if "unit" in given else name
        spark: SparkSession | None = given.get("spark")
        before = java_time(spark) if spark else None
        began = datetime.now(UTC)
        try:
            return function(*args, **kwargs)
        finally:
            java = java_time(spark).since(before) if spark and before else None
            work = WorkTime(step=step, began=began, ended=datetime.now(UTC), java=java)
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
