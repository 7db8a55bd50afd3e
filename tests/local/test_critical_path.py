from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from local.critical_path import TaskSpan, critical_path, describe
from local.run_report import java_by_task
from pipelines.work_time import JavaTime, WorkTime

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


def test_what_a_step_took_within_another_task_is_that_tasks() -> None:
    spans = [span("ingest", 0, 60), span("features", 61, 62), span("recs.build", 63, 90)]
    one = JavaTime(starting=1, compiling=2, collecting=3, tasks=4)

    def work(step: str, began: float, ended: float) -> WorkTime:
        at = span("any", began, ended)
        return WorkTime(step=step, began=at.began, ended=at.ended, java=one)

    works = [work("ingest", 5, 30), work("features", 30, 58), work("build recs", 70, 88)]
    spent = java_by_task(spans, works)
    assert spent == {"ingest": one.plus(one), "recs.build": one}
    assert spent["ingest"].tasks == 8
    # Computed by their own task, they are its own.
    works[1] = work("features", 61, 62)
    assert java_by_task(spans, works).keys() == {"ingest", "features", "recs.build"}
