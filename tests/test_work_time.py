from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest

from pipelines.config import Settings
from pipelines.models_config import Unit
from pipelines.run import RunPlan
from pipelines.work_time import WorkTime, seconds_at_work, timed, work_times

NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)
PLAN = RunPlan(
    run_date=date(2026, 3, 5),
    version=202603050001,
    run_type="manual",
    run_id="manual__1",
    units=("recs",),
)


def work(began: float, ended: float) -> WorkTime:
    return WorkTime(
        step="build recs",
        began=NOON + timedelta(seconds=began),
        ended=NOON + timedelta(seconds=ended),
    )


@pytest.mark.parametrize(
    ("works", "seconds"),
    [
        ([], 0),
        ([(0, 5)], 5),
        ([(0, 5), (7, 9)], 7),
        ([(0, 5), (3, 9)], 9),
        ([(0, 9), (2, 3), (8, 10)], 10),
        ([(8, 10), (0, 9), (2, 3)], 10),
        ([(0, 5), (0, 5)], 5),
    ],
)
def test_what_overlaps_counts_once(works: list[tuple[float, float]], seconds: float) -> None:
    assert seconds_at_work(work(*times) for times in works) == seconds


def test_each_step_of_a_run_leaves_its_time(settings_for: Callable[..., Settings]) -> None:
    settings = settings_for(model_server=False)

    @timed
    def ingest_step(settings: Settings, plan: RunPlan) -> str:
        return "done"

    @timed
    def build_step(settings: Settings, plan: RunPlan, unit: Unit) -> None:
        raise ValueError(unit)

    assert ingest_step(settings, PLAN) == "done"
    with pytest.raises(ValueError, match="recs"):
        build_step(settings, PLAN, unit="recs")
    first, second = work_times(settings.lake.run(PLAN.version))
    assert (first.step, second.step) == ("ingest", "build recs")
    assert first.began <= first.ended <= second.began <= second.ended
