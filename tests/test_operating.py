"""What people do in Airflow's UI, by its REST API and under the real scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from pipelines.errors import ServiceError
from tests.installation import RUN_SECONDS, DagRun, Dags, Installation
from tests.operated import (
    DAG,
    EMPTY_DAY,
    TODAY,
    Approved,
    Webhook,
    answer,
    live_version,
    versions,
    wait_for,
)

pytestmark = pytest.mark.timeout(3 * RUN_SECONDS)

BACKFILLED = [TODAY - timedelta(days=days) for days in (6, 5, 4, 3, 2)]


def test_a_run_by_the_form_goes_live_once_it_is_approved(
    ferry: Installation, approved: Approved
) -> None:
    assert approved.run.state == "success", approved
    assert set(approved.run.tasks.values()) == {"success"}, approved.run.tasks
    shown = ferry.ferry("release", "show", "recs", str(approved.version))
    assert shown["moves"][0]["version"] == approved.version
    training = shown["data"]["training"]
    assert date.fromisoformat(training["first_day"]) == TODAY - timedelta(days=19)


@pytest.mark.usefixtures("approved")
def test_a_run_that_is_late_is_told(ferry: Installation, webhook: Webhook) -> None:
    notice = webhook.wait_for(f"{DAG} is late", "it has not ended within", "/runs/manual__")
    assert "live now: " in notice
    # The secret part of the address comes from the connection.
    assert webhook.paths == {"/hooks/secret-part"}


def test_a_version_that_somebody_rejects_does_not_go_live(
    ferry: Installation, approved: Approved, webhook: Webhook
) -> None:
    before = live_version(ferry)
    with ferry.airflow() as dags:
        run_id = dags.trigger(DAG, {"run_date": TODAY.isoformat(), "approval": True})
        answer(dags, run_id, "Reject")
        run = dags.wait(DAG, run_id)
        version = dags.version(DAG, run_id)
    assert run.state == "success", run
    assert run.tasks["recs.activate"] == "skipped"
    reason = f"version {version} was rejected by admin"
    assert reason in run.logs["recs.activate"]
    assert live_version(ferry) == before
    notice = webhook.wait_for(f"{DAG}: not live", f"recs: {reason}")
    assert f"live now: recs {before}" in notice


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"units": ["rec"]}, "units"),
        ({"units": []}, "units"),
        ({"run_date": "tomorrow"}, "run_date"),
        ({"training_days": 0}, "training_days"),
        ({"note": "x" * 501}, "note"),
        ({"activate": "yes"}, "activate"),
        ({"approval": "maybe"}, "approval"),
    ],
)
def test_the_form_refuses(ferry: Installation, bad: dict[str, Any], named: str) -> None:
    with ferry.airflow() as dags:
        with pytest.raises(ServiceError, match=rf"dagRuns: 4\d\d .*{named}"):
            dags.trigger(DAG, bad)
        assert dags.api.unfinished_runs(DAG) == []


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"run_date": f"{TODAY + timedelta(days=2)}"}, "is in the future: today is"),
        ({"run_date": "1980-01-01"}, "no accepted event on 1980-01-01"),
    ],
)
def test_a_date_without_data_fails_in_one_line(
    ferry: Installation, conf: dict[str, Any], reason: str, webhook: Webhook
) -> None:
    with ferry.airflow() as dags:
        run = dags.run(DAG, conf)
    assert run.state == "failed"
    (failed,) = [name for name in ("plan", "ingest") if run.tasks[name] == "failed"]
    assert reason in run.logs[failed]
    webhook.wait_for(f"{DAG}: finish failed", run.run_id.split("+")[0].replace(":", "%3A"))


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


@dataclass(frozen=True)
class Backfill:
    """Five days, two at a time, killed half-way and resumed: the runs by run date."""

    runs: dict[date, dict[str, Any]]
    live_before: int
    live_after: int


@pytest.fixture(scope="module")
def backfilled(ferry: Installation, approved: Approved) -> Backfill:
    before = live_version(ferry)
    first, last = BACKFILLED[0], BACKFILLED[-1]
    body = {
        "dag_id": DAG,
        # The interval that ends on a day began on the day before.
        "from_date": f"{first - timedelta(days=1)}T00:00:00Z",
        "to_date": f"{last - timedelta(days=1)}T12:00:00Z",
        "max_active_runs": 2,
        "reprocess_behavior": "none",
        "dag_run_conf": {},
    }

    def runs(dags: Dags) -> list[dict[str, Any]]:
        listed = dags.api.send("GET", f"/api/v2/dags/{DAG}/dagRuns?run_type=backfill")
        return list(listed["dag_runs"])

    def some_are_done(dags: Dags) -> bool:
        states = [run["state"] for run in runs(dags)]
        return "success" in states and "running" in states

    with ferry.airflow() as dags:
        dags.api.send("POST", "/api/v2/backfills", body)
        wait_for(lambda: some_are_done(dags), "no day of the backfill ended")
    done = {line["version"] for line in versions(ferry)}
    ferry.kill_airflow()
    with ferry.airflow() as dags:
        wait_for(
            lambda: all(run["state"] in ("success", "failed") for run in runs(dags)),
            "the backfill was not resumed",
        )
        found = runs(dags)
    assert done <= {line["version"] for line in versions(ferry)}
    by_date = {date.fromisoformat(run["data_interval_end"][:10]): run for run in found}
    return Backfill(by_date, before, live_version(ferry))


def test_every_day_of_a_backfill_is_built_once_and_nothing_live_changes(
    ferry: Installation, backfilled: Backfill
) -> None:
    assert set(backfilled.runs) == set(BACKFILLED)
    assert {run["state"] for run in backfilled.runs.values()} == {"success"}
    built = [line["version"] for line in versions(ferry) if line["run_type"] == "backfill"]
    # A day that was under way when it was killed keeps its version, too.
    firsts = [version for version in built if version % 10_000 == 1]
    assert sorted(firsts) == [int(f"{d:%Y%m%d}0001") for d in BACKFILLED if d != EMPTY_DAY]
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
    day = BACKFILLED[-1]
    run_id = backfilled.runs[day]["dag_run_id"]
    with ferry.airflow() as dags:
        path = f"/api/v2/dags/{DAG}/dagRuns/{run_id}/clear"
        dags.api.send("POST", path, {"dry_run": False, "only_failed": False})
        assert dags.wait(DAG, run_id).state == "success"
    first, again = (
        ferry.ferry("release", "show", "recs", f"{day:%Y%m%d}{attempt:04d}") for attempt in (1, 2)
    )
    assert first["metrics"] == again["metrics"]


@pytest.fixture(scope="module")
def earlier(backfilled: Backfill) -> int:
    """A version that was built and never live."""
    return int(f"{BACKFILLED[-1]:%Y%m%d}0001")


def test_an_older_date_is_recorded_and_says_why_it_is_not_live(
    ferry: Installation, backfilled: Backfill, earlier: int
) -> None:
    with ferry.airflow() as dags:
        run = dags.wait(DAG, backfilled.runs[BACKFILLED[-1]]["dag_run_id"])
    reason = f"is older than {backfilled.live_before}, which is live"
    for step in ("stage", "activate"):
        assert run.tasks[f"recs.{step}"] == "skipped"
        assert reason in run.logs[f"recs.{step}"]
    sealed = ferry.ferry("release", "show", "recs", str(earlier))
    assert sealed["metrics"]
    assert {gate["verdict"] for gate in sealed["gates"]} <= {"passed", "not_compared"}
    dates = [line["run_date"] for line in ferry.ferry("history", "recs")]
    assert {d.isoformat() for d in BACKFILLED if d != EMPTY_DAY} <= set(dates)


def test_a_rollback_by_its_form(ferry: Installation, earlier: int) -> None:
    def form(version: int | None, reason: str) -> dict[str, Any]:
        return {"unit": "recs", "version": version, "reason": reason}

    live = live_version(ferry)
    with ferry.airflow() as dags:
        back = dags.run("rollback", form(earlier, "wrong prices"))
        assert back.state == "success", back
        (status,) = ferry.ferry("status")
        assert (status["live"]["version"], status["why"]) == (earlier, "wrong prices")
        assert back.run_id in status["who"]
        assert status["problems"] == []
        assert ferry.ferry("recommend", "10")["version"] == earlier
        # It was never live before, and nothing older was.
        none = dags.run("rollback", form(None, "also wrong"))
        assert none.state == "failed"
        assert f"recs {earlier} has no predecessor" in none.logs["roll_back"]
        forward = dags.run("rollback", form(live, "they were right"))
        assert forward.state == "success", forward
    assert live_version(ferry) == live


@pytest.mark.parametrize(
    "bad",
    [{"unit": "rec"}, {"reason": "x"}, {"reason": "    "}, {"reason": ""}, {"version": "latest"}],
)
def test_a_bad_rollback_is_refused(
    ferry: Installation, approved: Approved, bad: dict[str, Any]
) -> None:
    form = {"unit": "recs", "version": approved.version, "reason": "wrong prices", **bad}
    with ferry.airflow() as dags:
        with pytest.raises(ServiceError, match=r"dagRuns: 4\d\d .*" + next(iter(bad))):
            dags.trigger("rollback", form)
        assert dags.api.unfinished_runs("rollback") == []


@pytest.mark.usefixtures("approved")
def test_a_dry_run_of_retention_removes_nothing(ferry: Installation) -> None:
    before = ferry.ferry("release", "list", "recs")
    live = live_version(ferry)
    with ferry.airflow() as dags:
        run = dags.run("retention", {"dry_run": True})
        assert run.state == "success", run
        planned = dags.api.returned("retention", run.run_id, "retain_recs")
    assert (planned["unit"], planned["live"]) == ("recs", live)
    assert live in planned["kept"]
    assert planned["object_storage"] == []
    assert ferry.ferry("release", "list", "recs") == before


@pytest.mark.usefixtures("approved")
def test_an_emptied_redis_is_repaired_by_the_online_check(
    ferry: Installation, webhook: Webhook
) -> None:
    before = ferry.ferry("recommend", "10")
    url = next(
        line.split("=", 1)[1].strip("'")
        for line in (Path(ferry.environment["FERRY_HOME"]) / "env").read_text().splitlines()
        if line.startswith("FERRY_REDIS_URL=")
    )
    with redis.Redis.from_url(url) as client:
        client.flushall()
    assert ferry.run("pipelines.cli", "recommend", "10").returncode == 1
    with ferry.airflow() as dags:
        run = dags.run("online_check", {})
        assert run.state == "success", run
        (checked,) = dags.api.returned("online_check", run.run_id, "check")
    assert checked["repaired"]
    assert checked["checks"]
    assert ferry.ferry("recommend", "10") == before
    webhook.wait_for("repaired online", "staged again")


@pytest.mark.usefixtures("approved")
def test_a_restore_by_its_form(ferry: Installation) -> None:
    with ferry.airflow() as dags:
        run = dags.run("restore", {"unit": "recs"})
        assert run.state == "success", run
        done = dags.api.returned("restore", run.run_id, "restore_online")
    assert any("agree" in line for line in done["recs"])


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
        day = date.fromisoformat(run["data_interval_end"][:10])
        return Scheduled(
            ended, version, day, wait_for(told, "the release started nothing", seconds=120)
        )


def test_the_schedule_starts_a_run_by_itself(ferry: Installation, scheduled: Scheduled) -> None:
    assert scheduled.run.state == "success", scheduled.run
    assert str(scheduled.version).startswith(f"{scheduled.run_date:%Y%m%d}")
    built = {line["version"]: line["run_type"] for line in versions(ferry)}
    assert built[scheduled.version] == "scheduled"


def test_a_release_starts_a_dag_that_is_scheduled_on_it(
    approved: Approved, scheduled: Scheduled
) -> None:
    (extra,) = [extra for extra in scheduled.told if extra["version"] == approved.version]
    assert extra["run_date"] == TODAY.isoformat()
    assert extra["metrics"]["ndcg_at_10"] > 0
