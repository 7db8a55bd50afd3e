"""What happens by itself: the daily run, and what somebody's own DAG learns of a release."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from tests.installation import RUN_SECONDS, DagRun, Installation
from tests.operating.operated import DAG, LAST, Approved, versions, wait_for

pytestmark = pytest.mark.timeout(3 * RUN_SECONDS)


@dataclass(frozen=True)
class Scheduled:
    """A run that the schedule started, and what a DAG that waits for releases was told."""

    run: DagRun
    version: int
    run_date: date
    told: list[dict[str, Any]]


@pytest.fixture(scope="module")
def scheduled(ferry: Installation, approved: Approved) -> Scheduled:
    """From then on Airflow is on its schedule."""
    with ferry.airflow("daily") as dags:
        dags.api.set_paused(DAG, False)

        def runs() -> Any:
            return dags.api.send("GET", f"/api/v2/dags/{DAG}/dagRuns?run_type=scheduled")[
                "dag_runs"
            ]

        def told() -> list[dict[str, Any]]:
            listed = dags.api.send("GET", "/api/v2/dags/on_release/dagRuns")["dag_runs"]
            ended = [run["dag_run_id"] for run in listed if run["state"] == "success"]
            return [
                extra for run in ended for extra in dags.api.returned("on_release", run, "look")
            ]

        (run,) = wait_for(runs, "nothing was scheduled", seconds=120)
        ended = dags.wait(DAG, run["dag_run_id"])
        version = dags.version(DAG, ended.run_id)
        day = date.fromisoformat(run["data_interval_start"][:10])
        return Scheduled(
            ended, version, day, wait_for(told, "the release started nothing", seconds=120)
        )


def test_the_schedule_starts_a_run_for_the_last_complete_day(
    ferry: Installation, scheduled: Scheduled
) -> None:
    assert scheduled.run.state == "success", scheduled.run
    assert scheduled.run_date == LAST
    assert str(scheduled.version).startswith(f"{scheduled.run_date:%Y%m%d}")
    built = {line["version"]: line["run_type"] for line in versions(ferry)}
    assert built[scheduled.version] == "scheduled"


def test_a_release_starts_a_dag_that_is_scheduled_on_it(
    approved: Approved, scheduled: Scheduled
) -> None:
    # Once for each time that it went live: a rollback may have brought it back.
    told = [extra for extra in scheduled.told if extra["version"] == approved.version]
    assert told
    for extra in told:
        assert extra["run_date"] == LAST.isoformat()
        assert extra["metrics"]["ndcg_at_10"] > 0
