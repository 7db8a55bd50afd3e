"""`make run`: services, data, one run of the daily DAG under the scheduler, and its outcome."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from pathlib import Path

from rich.console import Console

from local.airflow_api import AirflowApi
from local.dag_run import DAG_ID, DagRun
from local.dataset import bring_in, find_source
from local.home import Home
from local.processes import exclusive
from local.run_report import print_report
from local.run_view import run_view
from local.stack import Stack
from pipelines.config import load_pipeline_config
from pipelines.errors import ConfigError

_SECONDS_BETWEEN_LINES = 30.0


def run(home: Home, console: Console, data: Path | None, run_date: date) -> bool:
    """Do everything once for `run_date`; return whether the run succeeded.

    Services stay up afterwards; Airflow does if it was up before.
    """
    source = find_source(load_pipeline_config(home.config).data.events, data, run_date)
    home.make_folders()
    stack = Stack(home, lambda line: console.print(line, markup=False, soft_wrap=True))
    with exclusive(home, "run") as is_ours:
        if not is_ours:
            raise ConfigError(f"another 'make run' is under way in {home.root}")
        stack.services_up()
        stays = stack.airflow.is_running()
        if stays:
            _wait_until_idle(stack)
        if source:
            bring_in(home, stack.secrets, source, stack.say)
        try:
            since = datetime.now(UTC)
            was_started = stack.airflow_up(None)
            with connect(stack) as api:
                if not was_started:
                    since = datetime.now(UTC)
                    api.ask_to_parse(DAG_ID)
                api.wait_for_dag(DAG_ID, since, stack.airflow.is_running)
                return _run_dag(stack, api, console, run_date, stays)
        finally:
            if not stays and stack.airflow.stop():
                stack.say("Airflow: stopped; the services stay up ('make down' stops them)")


def connect(stack: Stack) -> AirflowApi:
    """Log in to Airflow."""
    base_url = f"http://{stack.home.address('airflow')}"
    return AirflowApi(base_url, "admin", stack.secrets.airflow_password)


def _wait_until_idle(stack: Stack) -> None:
    """Wait for runs that are under way: data must not change while a run reads them."""
    with connect(stack) as api:
        said = 0.0
        while under_way := api.unfinished_runs(DAG_ID):
            if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                stack.say(
                    f"waiting for the end of {under_way[0]}, which is under way in Airflow at "
                    f"http://{stack.home.address('airflow')}"
                )
            time.sleep(1)


def _run_dag(stack: Stack, api: AirflowApi, console: Console, run_date: date, stays: bool) -> bool:
    began = time.monotonic()
    if not stays:
        for left_over in api.unfinished_runs(DAG_ID):
            stack.say(f"run {left_over} was interrupted earlier: ended as failed")
            api.end_run(DAG_ID, left_over)
    dag_run = DagRun(api, stack.home.airflow, run_date)
    dag_run.start()
    stack.say(f"run {dag_run.run_id} of {DAG_ID}, run date {run_date}")
    try:
        state = dag_run.follow(run_view(console), stack.airflow.is_running)
    except KeyboardInterrupt:
        if stays:
            address = f"http://{stack.home.address('airflow')}"
            stack.say(f"interrupted: the run goes on in Airflow at {address}")
        else:
            api.end_run(DAG_ID, dag_run.run_id)
            stack.say("interrupted: the run has been ended as failed")
        raise
    print_report(console, stack.home, dag_run, time.monotonic() - began)
    return state == "success"
