"""One Ferry with its Airflow for all tests of what people do with it: of `recs` alone.

Fixtures: `webhook`, `ferry`, `approved`. What uses them runs in one process, one after the other.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from local.home import HOST
from pipelines.config import PROJECT_ROOT
from tests.installation import DagRun, Dags, Installation, installed

DAG = "daily_retraining"
TODAY = datetime.now(UTC).date()
#: There are no events on this one.
EMPTY_DAY = TODAY - timedelta(days=4)
_SECONDS = 1500.0

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


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    try:
        yield hook
    finally:
        hook.close()


@pytest.fixture(scope="session")
def ferry(tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[Installation]:
    """A Ferry with data up to today, and nothing live."""
    folder = tmp_path_factory.mktemp("operated")
    operations = {
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
    dags = folder / "dags"
    shutil.copytree(PROJECT_ROOT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    (dags / "on_release.py").write_text(_ON_RELEASE)
    hook = {"conn_type": "http", "host": webhook.address, "password": "secret-part"}
    with installed(
        folder,
        {"recs": {"als": {"rank": 8, "iterations": 5}, "list_size": 10}},
        operations=operations,
        empty_day=(TODAY - EMPTY_DAY).days,
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
    # Faster than any person: before the scheduler has noted that the task waits, Airflow 3.3 takes
    # an answer for a fault of the executor, and asks again.
    time.sleep(5)
    dags.api.send("PATCH", path, {"chosen_options": [choice], "params_input": {}})


def versions(ferry: Installation) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = ferry.ferry("release", "list", "recs")
    return listed


def live_version(ferry: Installation) -> int:
    (recs,) = ferry.ferry("status")
    return int(recs["live"]["version"])


@dataclass(frozen=True)
class Approved:
    """A run that went live after somebody said yes."""

    run: DagRun
    version: int


@pytest.fixture(scope="session")
def approved(ferry: Installation) -> Approved:
    """The first run: by the form, with every field of it."""
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
        run = dags.wait(DAG, run_id)
        return Approved(run, dags.version(DAG, run_id))
