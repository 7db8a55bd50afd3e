"""Which of a run's tasks its length hangs on: what each waited for, from the last one back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipelines.work_time import JavaTime

#: Airflow notes an end a little later than the start that it made possible.
_CLOCK_SECONDS = 0.5


@dataclass(frozen=True)
class TaskSpan:
    """From when to when a task ran."""

    task_id: str
    began: datetime
    ended: datetime


@dataclass(frozen=True)
class Leg:
    """A task on the path, and the seconds between its start and the end of the one before it."""

    task: TaskSpan
    waited: float

    @property
    def seconds(self) -> float:
        """How long the task ran."""
        return (self.task.ended - self.task.began).total_seconds()


def critical_path(tasks: Iterable[TaskSpan]) -> list[Leg]:
    """Return the tasks on which the end of the last one hung, in their order.

    A task waited for whichever other ended last before it began: for one whose result it needs, or
    for one whose place in the pool it took.
    """
    left = sorted(tasks, key=lambda task: task.ended)
    path: list[Leg] = []
    while left:
        task = left.pop()
        while left and (left[-1].ended - task.began).total_seconds() > _CLOCK_SECONDS:
            left.pop()
        waited = (task.began - left[-1].ended).total_seconds() if left else 0.0
        path.insert(0, Leg(task, max(0.0, waited)))
    return path


def describe(path: Sequence[Leg], java: Mapping[str, JavaTime]) -> str:
    """Return the path in one line; `java` is by task."""
    legs = []
    for leg in path:
        spent = java.get(leg.task.task_id)
        parts = f" (Java {_spent(spent)})" if spent else ""
        legs.append(f"{leg.task.task_id} {leg.seconds:.0f} s{parts}")
    waited = sum(leg.waited for leg in path)
    return f"critical path: {' → '.join(legs)}; between them {waited:.0f} s"


def _spent(java: JavaTime) -> str:
    named = {
        "starting": java.starting,
        "compiling": java.compiling,
        "collecting": java.collecting,
        "in tasks": java.tasks,
    }
    return ", ".join(f"{name} {seconds:.0f}" for name, seconds in named.items() if seconds >= 0.5)
