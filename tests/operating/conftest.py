"""One Ferry of `recs` alone, with its Airflow, for all tests of what people do with it.

What uses it runs in one process, one after the other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from pipelines.config import PROJECT_ROOT
from tests.installation import Dags, Installation, installed
from tests.operating.operated import (
    BACKFILLED,
    BUILT,
    DAG,
    EMPTY_DAY,
    LAST,
    TODAY,
    TRAINING_DAYS,
    Approved,
    Backfill,
    Webhook,
    answer,
    live_version,
    versions,
    wait_for,
)

#: As for the tests' own Spark. The daily run's tests have Spark as it is.
_JAVA_OPTIONS = (
    "-XX:TieredStopAtLevel=1 "
    "-Dspark.sql.codegen.wholeStage=false -Dspark.sql.codegen.factoryMode=NO_CODEGEN "
    "-Dspark.sql.adaptive.enabled=false"
)

#: Somebody's own DAG, which a release starts.
_ON_RELEASE = """
from datetime import timedelta
from airflow.sdk import Asset, dag, task

RELEASE = Asset(name="ferry_recs", uri="ferry://releases/recs")

@dag(schedule=[RELEASE], is_paused_upon_creation=False)
def on_release():
    # An Airflow that has just been started may run it before its API answers.
    @task(retries=5, retry_delay=timedelta(seconds=5))
    def look(triggering_asset_events=None):
        return [event.extra for events in triggering_asset_events.values() for event in events]
    look()

on_release()
"""


@pytest.fixture(scope="package")
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    try:
        yield hook
    finally:
        hook.close()


@pytest.fixture(scope="package")
def ferry(tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[Installation]:
    """A Ferry with data up to today, and nothing live."""
    folder = tmp_path_factory.mktemp("operated")
    operations = {
        # Whatever the time is, the last start was after the last complete day.
        "schedule": "@daily",
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
        {"recs": {"als": {"enabled": False}, "list_size": 10}},
        operations=operations,
        empty_day=(TODAY - EMPTY_DAY).days,
        FERRY_DAGS_FOLDER=str(dags),
        FERRY_CONFIG=str(folder / "recs.yaml"),
        AIRFLOW_CONN_FERRY_WEBHOOK=json.dumps(hook),
        JDK_JAVA_OPTIONS=_JAVA_OPTIONS,
        # Tasks whose machine died are noticed within seconds and not minutes.
        AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT="15",
        AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL="3",
    ) as installation:
        assert installation.run("local", "services").returncode == 0
        data = ("data", "import-movielens", str(folder / "movielens"))
        brought = installation.run("pipelines.cli", *data, f"--end-date={TODAY}")
        assert brought.returncode == 0, brought.stderr
        yield installation


@pytest.fixture(scope="package")
def approved(ferry: Installation) -> Approved:
    """The first run: by the form, with every field of it."""
    form = {
        "run_date": LAST.isoformat(),
        "units": ["recs"],
        "approval": True,
        "training_days": TRAINING_DAYS,
        "note": "{{ a <b>note</b> }}",
    }
    with ferry.airflow() as dags:
        run_id = dags.trigger(DAG, form)
        answer(dags, run_id, "Approve")
        run = dags.wait(DAG, run_id)
        return Approved(run, dags.version(DAG, run_id))


@pytest.fixture(scope="package")
def backfilled(ferry: Installation, approved: Approved) -> Backfill:
    before = live_version(ferry)
    first, last = BACKFILLED[0], BACKFILLED[-1]
    body = {
        "dag_id": DAG,
        "from_date": f"{first}T00:00:00Z",
        "to_date": f"{last}T00:00:00Z",
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
    by_date = {date.fromisoformat(run["data_interval_start"][:10]): run for run in found}
    return Backfill(by_date, before, live_version(ferry))


@pytest.fixture(scope="package")
def earlier(backfilled: Backfill) -> int:
    """A version that was built and never live."""
    return int(f"{BUILT[-1]:%Y%m%d}0001")
