"""What people do in Airflow's UI, by its REST API and under the real scheduler."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from local.home import HOST
from pipelines.config import PROJECT_ROOT
from pipelines.errors import ServiceError
from tests.installation import RUN_SECONDS, DagRun, Dags, Installation, installed, write_movielens

pytestmark = pytest.mark.timeout(RUN_SECONDS)

DAG = "daily_retraining"
TODAY = datetime.now(UTC).date()
#: There are no events on this one.
EMPTY_DAY = TODAY - timedelta(days=4)
BACKFILLED = [TODAY - timedelta(days=days) for days in (6, 5, 4, 3, 2)]
_SECONDS = 900.0

#: Somebody's own DAG, which a release starts.
_ON_RELEASE = """
from airflow.sdk import Asset, dag, task

RELEASE = Asset(name="ferry_recs", uri="ferry://releases/recs")

@dag(schedule=[RELEASE], is_paused_upon_creation=False)
def on_release():
    @task
    def look(triggering_asset_events=None):
        return [event.extra for events in triggering_asset_events.values() for event in events]
    look()

on_release()
"""


class Webhook:
    """Takes what notifiers post."""

    def __init__(self) -> None:
        texts: list[str] = []
        paths: set[str] = set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                texts.append(json.loads(body)["text"])
                paths.add(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self.texts, self.paths = texts, paths
        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.address = f"http://{HOST}:{self._server.server_port}/hooks"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, *words: str) -> str:
        """Return the first text with all of `words`, once there is one."""

        def find() -> str | None:
            return next((t for t in self.texts if all(word in t for word in words)), None)

        return str(wait_for(find, f"no notice of {words} among {self.texts}", seconds=60))


def wait_for(find: Callable[[], Any], otherwise: str, seconds: float = _SECONDS) -> Any:
    """Return what `find` returns once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    try:
        yield hook
    finally:
        hook.close()


@pytest.fixture(scope="module")
def ferry(tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("operated")
    write_movielens(folder / "movielens", empty_day=4)
    config = yaml.safe_load((PROJECT_ROOT / "pipeline.yaml").read_text())
    config["models"] = {
        "recs": {"als": {"rank": 8, "iterations": 5}, "list_size": 10},
        **{
            unit: {"enabled": False}
            for unit in ("embeddings", "interest_ranker", "ctr_pmml", "embedding_mlp")
        },
    }
    config["operations"] = {
        # Every run misses it.
        "deadline_hours": 5 / 3600,
        "approval_hours": 0.5,
        "notify": [
            {
                "notifier": "ferry_notifiers.WebhookNotifier",
                "arguments": {"text": "{subject}\n{message}"},
            }
        ],
    }
    for name in ("pipeline.yaml", "recs.yaml"):
        (folder / name).write_text(yaml.safe_dump(config))
    dags = folder / "dags"
    shutil.copytree(PROJECT_ROOT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    (dags / "on_release.py").write_text(_ON_RELEASE)
    hook = {"conn_type": "http", "host": webhook.address, "password": "secret-part"}
    with installed(
        folder,
        FERRY_DAGS_FOLDER=str(dags),
        AIRFLOW_CONN_FERRY_WEBHOOK=json.dumps(hook),
        # Tasks whose machine died are noticed within seconds and not minutes.
        AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT="15",
        AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL="3",
    ) as installation:
        assert installation.run("local", "services").returncode == 0
        data = ("data", "import-movielens", str(folder / "movielens"))
        brought = installation.run("pipelines.cli", *data, f"--end-date={TODAY}")
        assert brought.returncode == 0, brought.stderr
        yield installation


def answer(dags: Dags, run_id: str, choice: str) -> None:
    """Wait until the run asks for approval, and answer."""
    path = f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances/recs.approve/-1/hitlDetails"
    asked = wait_for(lambda: dags.api.send("GET", path, missing_ok=True), "nobody was asked")
    assert "ndcg_at_10" in asked["body"]
    dags.api.send("PATCH", path, {"chosen_options": [choice], "params_input": {}})


def versions(ferry: Installation) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = ferry.ferry("release", "list", "recs")
    return listed


def live_version(ferry: Installation) -> int:
    (recs,) = ferry.ferry("status")
    return int(recs["live"]["version"])


@pytest.fixture(scope="module")
def approved(ferry: Installation) -> DagRun:
    """A run by the form that goes live after somebody said yes."""
    form = {
        "run_date": TODAY.isoformat(),
        "units": ["recs"],
        "approval": True,
        "training_days": 20,
        "note": "{{ a <b>note</b> }}",
    }
    with ferry.airflow() as dags:
        run_id = dags.trigger(DAG, form)
        answer(dags, run_id, "Approve")
        return dags.wait(DAG, run_id)


def test_a_run_by_the_form_goes_live_once_it_is_approved(
    ferry: Installation, approved: DagRun
) -> None:
    assert approved.state == "success", approved
    assert set(approved.tasks.values()) == {"success"}, approved.tasks
    version = live_version(ferry)
    assert version == int(f"{TODAY:%Y%m%d}0001")
    training = ferry.ferry("release", "show", "recs", str(version))["data"]["training"]
    assert date.fromisoformat(training["first_day"]) == TODAY - timedelta(days=19)


@pytest.mark.usefixtures("approved")
def test_a_release_starts_a_dag_that_is_scheduled_on_it(ferry: Installation) -> None:
    with ferry.airflow() as dags:

        def released() -> Any:
            runs = dags.api.send("GET", "/api/v2/dags/on_release/dagRuns")["dag_runs"]
            return [run for run in runs if run["state"] == "success"]

        run = wait_for(released, "the release started nothing", seconds=120)[0]
        (extra,) = dags.api.returned("on_release", run["dag_run_id"], "look")
    assert extra["version"] == live_version(ferry)
    assert extra["run_date"] == TODAY.isoformat()
    assert extra["metrics"]["ndcg_at_10"] > 0


@pytest.mark.usefixtures("approved")
def test_a_run_that_is_late_is_told(ferry: Installation, webhook: Webhook) -> None:
    notice = webhook.wait_for(f"{DAG} is late", "it has not ended within", "/runs/manual__")
    assert "live now: " in notice
    # The secret part of the address comes from the connection.
    assert webhook.paths == {"/hooks/secret-part"}


def test_a_version_that_somebody_rejects_does_not_go_live(
    ferry: Installation, approved: DagRun, webhook: Webhook
) -> None:
    before = live_version(ferry)
    with ferry.airflow() as dags:
        run_id = dags.trigger(DAG, {"run_date": TODAY.isoformat(), "approval": True})
        answer(dags, run_id, "Reject")
        run = dags.wait(DAG, run_id)
    assert run.state == "success", run
    assert run.tasks["recs.activate"] == "skipped"
    assert "rejected by admin" in run.logs["recs.activate"]
    assert live_version(ferry) == before
    notice = webhook.wait_for(f"{DAG}: not live", "recs: rejected by admin")
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


@pytest.fixture(scope="module")
def backfilled(ferry: Installation, approved: DagRun) -> dict[str, dict[str, Any]]:
    """Five days, two at a time; killed half-way, and resumed. By run date: the run."""
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
    return {run["data_interval_end"][:10]: run for run in found}


def test_every_day_of_a_backfill_is_built_once_and_nothing_live_changes(
    ferry: Installation, backfilled: dict[str, dict[str, Any]], approved: DagRun
) -> None:
    assert {date.fromisoformat(day) for day in backfilled} == set(BACKFILLED)
    assert {run["state"] for run in backfilled.values()} == {"success"}
    built = [line["version"] for line in versions(ferry) if line["run_type"] == "backfill"]
    # A day that was under way when it was killed keeps its version, too.
    assert sorted(built) == [int(f"{d:%Y%m%d}0001") for d in BACKFILLED if d != EMPTY_DAY]
    assert live_version(ferry) == int(f"{TODAY:%Y%m%d}0001")
    for version in built:
        shown = ferry.ferry("release", "show", "recs", str(version))
        # From that day's knowledge.
        assert shown["data"]["training"]["last_day"] == shown["run_date"]


def test_a_day_without_data_is_left_out_with_the_reason(
    ferry: Installation, backfilled: dict[str, dict[str, Any]]
) -> None:
    with ferry.airflow() as dags:
        run = dags.wait(DAG, backfilled[EMPTY_DAY.isoformat()]["dag_run_id"])
    assert run.state == "success"
    assert run.tasks.pop("plan") == "success"
    assert set(run.tasks.values()) == {"skipped"}
    reason = f"{EMPTY_DAY} is left out: no accepted event on {EMPTY_DAY}"
    for task in ("ingest", "recs.activate", "finish"):
        assert reason in run.logs[task]


def test_a_day_that_is_processed_again_gives_the_same_metrics(
    ferry: Installation, backfilled: dict[str, dict[str, Any]]
) -> None:
    day = BACKFILLED[-1]
    run_id = backfilled[day.isoformat()]["dag_run_id"]
    with ferry.airflow() as dags:
        path = f"/api/v2/dags/{DAG}/dagRuns/{run_id}/clear"
        dags.api.send("POST", path, {"dry_run": False, "only_failed": False})
        assert dags.wait(DAG, run_id).state == "success"
    first, again = (
        ferry.ferry("release", "show", "recs", f"{day:%Y%m%d}{attempt:04d}") for attempt in (1, 2)
    )
    assert first["metrics"] == again["metrics"]


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


@pytest.mark.usefixtures("backfilled")
def test_the_schedule_starts_a_run_by_itself(ferry: Installation) -> None:
    """Last: from then on Airflow is on its schedule."""
    with ferry.airflow("daily") as dags:
        dags.api.set_paused(DAG, False)

        def scheduled() -> Any:
            listed = dags.api.send("GET", f"/api/v2/dags/{DAG}/dagRuns?run_type=scheduled")
            return listed["dag_runs"]

        (run,) = wait_for(scheduled, "nothing was scheduled", seconds=120)
        ended = dags.wait(DAG, run["dag_run_id"])
    assert ended.state == "success", ended
    day = run["data_interval_end"][:10].replace("-", "")
    newest = max(v["version"] for v in versions(ferry) if v["run_type"] == "scheduled")
    assert str(newest)[:8] == day
