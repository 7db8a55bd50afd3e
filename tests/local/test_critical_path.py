from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from local.critical_path import TaskSpan, critical_path, describe
from pipelines.work_time import JavaTime

NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)


def span(task_id: str, began: float, ended: float) -> TaskSpan:
    return TaskSpan(task_id, NOON + timedelta(seconds=began), NOON + timedelta(seconds=ended))


@pytest.mark.parametrize(
    ("tasks", "path", "waited"),
    [
        ([], [], []),
        ([("plan", 0, 4)], ["plan"], [0]),
        ([("plan", 0, 4), ("ingest", 5, 60)], ["plan", "ingest"], [0, 1]),
        # Beside each other: the one that ended last counts.
        (
            [("ingest", 0, 10), ("a.build", 11, 50), ("b.build", 11, 40), ("finish", 51, 52)],
            ["ingest", "a.build", "finish"],
            [0, 1, 1],
        ),
        # The third waited for a place, not for what it reads.
        (
            [("ingest", 0, 10), ("a", 11, 30), ("b", 11, 50), ("c", 31, 60), ("finish", 61, 62)],
            ["ingest", "a", "c", "finish"],
            [0, 1, 1, 1],
        ),
        # Noted a little late.
        ([("a", 0, 10.3), ("b", 10, 20)], ["a", "b"], [0, 0]),
    ],
)
def test_the_path_goes_back_from_the_last_end(
    tasks: list[tuple[str, float, float]], path: list[str], waited: list[float]
) -> None:
    found = critical_path(span(*task) for task in tasks)
    assert [leg.task.task_id for leg in found] == path
    assert [leg.waited for leg in found] == waited


def test_the_path_is_one_line_with_what_java_spent() -> None:
    path = critical_path([span("plan", 0, 4), span("ingest", 6, 26)])
    spent = JavaTime(starting=6.2, compiling=8, collecting=0.1, tasks=11)
    assert describe(path, {"ingest": spent}) == (
        "critical path: plan 4 s → ingest 20 s (Java starting 6, compiling 8, in tasks 11); "
        "between them 2 s"
    )
