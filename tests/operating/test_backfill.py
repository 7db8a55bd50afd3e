"""A backfill of some days, killed half-way and resumed."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from pipelines.errors import ServiceError
from tests.installation import RUN_SECONDS, Installation
from tests.operating.operated import BACKFILLED, BUILT, DAG, EMPTY_DAY, TODAY, Backfill, versions

pytestmark = pytest.mark.timeout(3 * RUN_SECONDS)


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        (TODAY - timedelta(days=2), TODAY - timedelta(days=5), "must not be after"),
        (TODAY + timedelta(days=2), TODAY + timedelta(days=5), "future"),
    ],
)
def test_a_backfill_of_no_days_is_refused(
    ferry: Installation, first: date, last: date, reason: str
) -> None:
    span = {"from_date": f"{first}T00:00:00Z", "to_date": f"{last}T00:00:00Z"}
    with ferry.airflow() as dags:
        dags.api.wait_for_dag(DAG, dags.since, dags.is_alive)
        with pytest.raises(ServiceError, match=rf"backfills: 4\d\d .*{reason}"):
            dags.api.send("POST", "/api/v2/backfills", {"dag_id": DAG, **span})


def test_every_day_of_a_backfill_is_built_once_and_nothing_live_changes(
    ferry: Installation, backfilled: Backfill
) -> None:
    assert set(backfilled.runs) == set(BACKFILLED)
    assert {run["state"] for run in backfilled.runs.values()} == {"success"}
    built = [line["version"] for line in versions(ferry) if line["run_type"] == "backfill"]
    # A day that was under way when it was killed keeps its version, too.
    firsts = [version for version in built if version % 10_000 == 1]
    assert sorted(firsts) == [int(f"{d:%Y%m%d}0001") for d in BUILT]
    assert backfilled.live_after == backfilled.live_before
    for version in built:
        shown = ferry.ferry("release", "show", "recs", str(version))
        # From that day's knowledge.
        assert shown["data"]["training"]["last_day"] == shown["run_date"]


def test_a_day_without_data_is_left_out_with_the_reason(
    ferry: Installation, backfilled: Backfill
) -> None:
    with ferry.airflow() as dags:
        run = dags.wait(DAG, backfilled.runs[EMPTY_DAY]["dag_run_id"])
    assert run.state == "success"
    assert run.tasks.pop("plan") == "success"
    assert set(run.tasks.values()) == {"skipped"}
    reason = f"{EMPTY_DAY} is left out: no accepted event on {EMPTY_DAY}"
    for task in ("ingest", "recs.activate", "finish"):
        assert reason in run.logs[task]


def test_a_day_that_is_processed_again_gives_the_same_metrics(
    ferry: Installation, backfilled: Backfill
) -> None:
    day = BUILT[-1]
    run_id = backfilled.runs[day]["dag_run_id"]
    with ferry.airflow() as dags:
        path = f"/api/v2/dags/{DAG}/dagRuns/{run_id}/clear"
        dags.api.send("POST", path, {"dry_run": False, "only_failed": False})
        assert dags.wait(DAG, run_id).state == "success"
    first, again = (
        ferry.ferry("release", "show", "recs", f"{day:%Y%m%d}{attempt:04d}") for attempt in (1, 2)
    )
    assert first["metrics"] == again["metrics"]


def test_an_older_date_is_recorded_and_says_why_it_is_not_live(
    ferry: Installation, backfilled: Backfill, earlier: int
) -> None:
    with ferry.airflow() as dags:
        run = dags.wait(DAG, backfilled.runs[BUILT[-1]]["dag_run_id"])
    reason = f"is older than {backfilled.live_before}, which is live"
    for step in ("stage", "activate"):
        assert run.tasks[f"recs.{step}"] == "skipped"
        assert reason in run.logs[f"recs.{step}"]
    sealed = ferry.ferry("release", "show", "recs", str(earlier))
    assert sealed["metrics"]
    assert {gate["verdict"] for gate in sealed["gates"]} <= {"passed", "not_compared"}
    dates = [line["run_date"] for line in ferry.ferry("history", "recs")]
    assert {d.isoformat() for d in BUILT} <= set(dates)
