"""`make run` and `make up` under the real scheduler, with a stand-in for the daily DAG."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from local.airflow_api import AirflowApi
from local.dag_run import DAG_ID
from local.home import HOST
from tests.local.conftest import LocalCommand


def login(command: LocalCommand) -> AirflowApi:
    secrets = json.loads((command.root / "secrets.json").read_text())
    port = command.env["FERRY_AIRFLOW_PORT"]
    return AirflowApi(f"http://{HOST}:{port}", "admin", secrets["airflow_password"])


@pytest.fixture(scope="module")
def airflow_up(
    tmp_path_factory: pytest.TempPathFactory,
    new_local_command: Callable[[Path], LocalCommand],
) -> Iterator[LocalCommand]:
    """Services and Airflow as `make up` leaves them; each start of Airflow costs half a minute."""
    command = new_local_command(tmp_path_factory.mktemp("up") / "home")
    code, output = command("up")
    assert code == 0, output
    assert "login:    admin / " in output
    assert "online_check      on      every hour: " in output
    assert "retention         on      every day: " in output
    # The source of these homes matches no file.
    assert "daily_retraining  paused  no file matches data.events.path, /nowhere: " in output
    with login(command) as api:
        api.set_paused(DAG_ID, False)
    yield command
    pids = [started.pid for started in command.home_processes()]
    code, output = command("down")
    assert code == 0, output
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_a_run_is_followed_to_its_end(airflow_up: LocalCommand) -> None:
    code, output = airflow_up("run", "--run-date", "2026-03-01")
    assert code == 0, output
    assert "build running" in output
    assert "build: 1/2 steps (50%)" in output
    assert "finish success" in output
    assert "recs │ live    │ 202603010001" in output
    assert "popularity" in output
    assert "ferry rank 71 5 6 7" in output
    # It was up before and stays up.
    assert "stopped" not in output


def test_a_failed_task_is_explained_and_fails_the_command(airflow_up: LocalCommand) -> None:
    code, output = airflow_up("run", "--run-date", "2001-03-01")
    assert code == 1, output
    assert "build failed: recs: not built, free some space\n" in output
    log = output.split("  log: ", 1)[1].splitlines()[0]
    assert "free some space" in Path(log).read_text()
    assert "finish upstream_failed" in output


def test_a_refused_unit_is_told_with_its_reason_and_fails_nothing(
    airflow_up: LocalCommand,
) -> None:
    code, output = airflow_up("run", "--run-date", "2002-03-01")
    assert code == 0, output
    reason = "version 200203010001 was refused by its gates: ndcg_at_10 is 0.03, must be more"
    assert f"stage skipped {reason}\n" in output
    assert "finish success" in output
    row = next(line for line in output.splitlines() if line.startswith("│ recs"))
    assert [cell.strip() for cell in row.split("│")[2:4]] == ["refused", "200112310001"]
    told = output.split("│ recs", 1)[1].replace("│", " ")
    assert reason in " ".join(told.split())


def test_an_interrupted_run_goes_on_in_an_airflow_that_stays(airflow_up: LocalCommand) -> None:
    process = airflow_up.start("run", "--run-date", "2003-03-02")
    assert process.stdout
    for line in process.stdout:
        if "plan success" in line:
            process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    code, output = airflow_up("run", "--run-date", "2026-03-03")
    assert code == 0, output


def test_what_somebody_paused_stays_paused(airflow_up: LocalCommand) -> None:
    with login(airflow_up) as api:
        for dag_id in (DAG_ID, "retention"):
            api.set_paused(dag_id, True)
    code, output = airflow_up("run", "--run-date", "2026-03-05")
    assert code == 0, output
    assert f"{DAG_ID} is paused: Airflow starts again without its schedule" in output
    with login(airflow_up) as api:
        assert api.is_paused(DAG_ID)
        api.set_paused(DAG_ID, False)
    code, output = airflow_up("up")
    assert code == 0, output
    assert "retention         paused  by hand; " in output
    with login(airflow_up) as api:
        assert api.is_paused(DAG_ID), "it has nothing to read"
        assert api.is_paused("retention")
        assert not api.is_paused("online_check")


def test_a_day_that_has_not_ended_is_refused_before_anything_starts(local: LocalCommand) -> None:
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    code, output = local("run", "--run-date", today)
    assert code == 1
    assert output.startswith(f"error: RUN_DATE={today} has not ended: it is complete at ")
    assert output.count("\n") == 1
    assert not local.root.exists()


def test_the_airflow_command_knows_the_connections(airflow_up: LocalCommand) -> None:
    code, output = airflow_up("airflow", "dags", "list", "--output", "plain")
    assert code == 0, output
    assert "daily_retraining" in output
