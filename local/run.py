"""`make run`: services, data, one run of the daily DAG under the scheduler, and its outcome."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from pathlib import Path

from rich.console import Console

from local.airflow_api import AirflowApi
from local.dag_run import DAG_ID, DagRun
from local.dataset import bring_in, choose_data
from local.home import Home
from local.processes import exclusive
from local.run_report import print_report
from local.run_view import run_view
from local.stack import Stack
from pipelines.config import load_pipeline_config
from pipelines.errors import ConfigError

_SECONDS_BETWEEN_LINES = 30.0


def run(
    home: Home,
    console: Console,
    data: Path | None,
    run_date: date | None,
    *,
    partial_day: bool = False,
) -> bool:
    """Do everything once; return whether the run succeeded.

    `run_date` None: the newest complete day of the data. With `partial_day` the run date may still
    be going on. Services stay up afterwards; Airflow does if it was up before.

    Raises:
        FerryError: the run date or the data are refused before anything starts, something does
            not start, or the data can't be brought in.
    """
    config = load_pipeline_config(home.config).data
    choice = choose_data(home, config, data, run_date, datetime.now(UTC), partial_day=partial_day)
    home.make_folders()
    stack = Stack(home, lambda line: console.print(line, markup=False, soft_wrap=True))
    with exclusive(home, "run") as is_ours:
        if not is_ours:
            raise ConfigError(f"another 'make run' is under way in {home.root}")
        stack.services_up()
        stays = stack.airflow.is_running()
        without_schedule = False
        if stays:
            _wait_until_idle(stack)
            without_schedule = _would_start_others(stack)
        if choice.data:
            bring_in(home, stack.secrets, choice, stack.say)
        try:
            since = datetime.now(UTC)
            was_started = stack.airflow_up("none" if without_schedule else None)
            with connect(stack) as api:
                if not was_started:
                    since = datetime.now(UTC)
                    api.ask_to_parse(DAG_ID)
                api.wait_for_dag(DAG_ID, since, stack.airflow.is_running)
                dag_run = DagRun(api, home.airflow, choice.run_date, partial_day=partial_day)
                return _run_dag(stack, api, console, dag_run, stays and not without_schedule)
        finally:
            if without_schedule:
                stack.airflow_up("daily")
            elif not stays and stack.airflow.stop():
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


def _would_start_others(stack: Stack) -> bool:
    """Whether the schedule would start a run of its own, and first, once the DAG is unpaused."""
    record = stack.airflow.record()
    if not record or record.schedule != "daily":
        return False
    with connect(stack) as api:
        is_paused = api.is_paused(DAG_ID)
    if is_paused:
        stack.say(f"{DAG_ID} is paused: Airflow starts again without its schedule for this run")
    return is_paused


def _run_dag(stack: Stack, api: AirflowApi, console: Console, dag_run: DagRun, stays: bool) -> bool:
    began = time.monotonic()
    if not stays:
        for left_over in api.unfinished_runs(DAG_ID):
            stack.say(f"run {left_over} was interrupted earlier: ended as failed")
            api.end_run(DAG_ID, left_over)
    was_paused = api.is_paused(DAG_ID)
    dag_run.start()
    stack.say(f"run {dag_run.run_id} of {DAG_ID}, run date {dag_run.describe_date()}")
    try:
        state = dag_run.follow(run_view(console), stack.airflow.is_running)
    except KeyboardInterrupt:
        if stays:
            address = f"http://{stack.home.address('airflow')}"
            stack.say(f"interrupted: the run goes on in Airflow at {address}")
        else:
            api.end_run(DAG_ID, dag_run.run_id)
            stack.say("interrupted: the run has been ended as failed")
            _leave_paused(stack, api, was_paused)
        raise
    _leave_paused(stack, api, was_paused)
    print_report(console, stack.home, dag_run, time.monotonic() - began)
    return state == "success"


def _leave_paused(stack: Stack, api: AirflowApi, was_paused: bool) -> None:
    """Pause the DAG again, which was unpaused for the run alone."""
    if not was_paused:
        return
    # Paused, it would never go on.
    if under_way := api.unfinished_runs(DAG_ID):
        stack.say(f"{DAG_ID} was paused, and is on now: {under_way[0]} is under way")
    else:
        api.set_paused(DAG_ID, True)
