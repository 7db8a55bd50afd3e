"""What the tests of operating share: a webhook, answers by a person, and how runs are looked at."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from local.home import HOST
from local.run_view import FINISHED
from pipelines.patience import Deadline, patient
from tests.installation import DagRun, Dags, Installation

DAG = "daily_retraining"
#: There are events on this one, too, and it has not ended.
TODAY = datetime.now(UTC).date()
#: The last complete day.
LAST = TODAY - timedelta(days=1)
#: There are no events on this one.
EMPTY_DAY = LAST - timedelta(days=2)
#: The days of these are built by a backfill: one can be done while the other is under way.
BUILT = [LAST - timedelta(days=days) for days in (4, 3)]
#: A backfill is of these.
BACKFILLED = [*BUILT, EMPTY_DAY]
#: With days of the same window, a later run's lists are as good: its gates let it pass.
TRAINING_DAYS = 20
_SECONDS = 1500.0


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
    deadline = Deadline(seconds)
    while not (found := find()):
        assert not deadline.is_over, otherwise
        time.sleep(1)
    return found


def answer(dags: Dags, run_id: str, choice: str) -> None:
    """Wait until the run asks for approval, and answer; once more, if it asks again.

    Before the scheduler has noted that the task waits, Airflow 3.3 takes an answer for a fault of
    the executor, and asks again. No person is as fast, but on a crowded machine a test is.
    """
    path = f"/api/v2/dags/{DAG}/dagRuns/{run_id}/taskInstances/recs.approve/-1/hitlDetails"

    def question() -> Any:
        state = dags.api.run_state(DAG, run_id)
        assert state in ("queued", "running"), f"the run ended, {state}, and asked nobody"
        return dags.api.send("GET", path, missing_ok=True)

    asked = wait_for(question, "nobody was asked")
    assert "ndcg_at_10" in asked["body"]

    def heard() -> str | None:
        (state,) = (
            task.state
            for task in dags.api.task_instances(DAG, run_id)
            if task.task_id == "recs.approve"
        )
        if state in FINISHED:
            return "heard"
        again = state == "awaiting_input" and not dags.api.send("GET", path)["response_received"]
        return "asked again" if again else None

    said = ""
    while said != "heard":
        time.sleep(patient(5))
        dags.api.send("PATCH", path, {"chosen_options": [choice], "params_input": {}})
        said = wait_for(heard, "the answer came to nothing")


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


@dataclass(frozen=True)
class Backfill:
    """Some days, two at a time, killed half-way and resumed: the runs by run date."""

    runs: dict[date, dict[str, Any]]
    live_before: int
    live_after: int
