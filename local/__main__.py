"""The command behind the Makefile: `python -m local up|services|down|status|run|clean|airflow`."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from local.commands import airflow_program
from local.environment import airflow_environment, process_environment
from local.home import load_home
from local.run import connect, run
from local.schedules import SCHEDULED, switch_on
from local.stack import Stack
from pipelines.config import load_pipeline_config
from pipelines.errors import ConfigError, FerryError

app = typer.Typer(
    help="The embedded services and Airflow on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
# A log has no width of its own: wide enough there for the tables.
_console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _say(line: str) -> None:
    _console.print(line, markup=False, soft_wrap=True)


@app.command("run")
def run_command(
    data: Annotated[str, typer.Option(help="A MovieLens folder; empty: synthetic data.")] = "",
    run_date: Annotated[
        str, typer.Option(help="YYYY-MM-DD; empty: the last complete day of the data.")
    ] = "",
    partial_day: Annotated[
        str, typer.Option(help="1: also a run date that has not ended; empty or 0: not.")
    ] = "",
) -> None:
    """Run the daily DAG for one run date, from data to serving."""
    try:
        day = date.fromisoformat(run_date) if run_date else None
    except ValueError as error:
        raise ConfigError(f"RUN_DATE={run_date} is not a date: write it as YYYY-MM-DD") from error
    if partial_day not in ("", "0", "1"):
        raise ConfigError(f"PARTIAL_DAY={partial_day}: write 1, or leave it out")
    folder = Path(data) if data else None
    if not run(load_home(), _console, folder, day, partial_day=partial_day == "1"):
        raise typer.Exit(1)


@app.command()
def up() -> None:
    """Start the services and Airflow, with the DAGs on their schedules."""
    home = load_home()
    config = load_pipeline_config(home.config)
    stack = Stack(home, _say)
    stack.services_up()
    since = datetime.now(UTC)
    was_started = stack.airflow_up("daily")
    with connect(stack) as api:
        if was_started:
            for dag_id in SCHEDULED:
                api.wait_for_dag(dag_id, since, stack.airflow.is_running)
        lines = switch_on(api, home, config)
    _say(f"Airflow:  http://{home.address('airflow')}")
    _say(f"login:    admin / {stack.secrets.airflow_password}")
    _say("DAGs:")
    for line in lines:
        _say(f"  {line}")


@app.command()
def services() -> None:
    """Start the services alone: enough for the `ferry` commands, without Airflow."""
    Stack(load_home(), _say).services_up()


@app.command()
def down() -> None:
    """Stop Airflow and the services; their data stay."""
    Stack(load_home(), _say).down()


@app.command()
def status() -> None:
    """Show what is running, and where."""
    stack = Stack(load_home(), _say)
    for group, probes in (
        (stack.services, stack.service_probes()),
        (stack.airflow, [stack.airflow_probe()]),
    ):
        for probe in probes:
            if not group.is_running():
                state = "not running"
            else:
                state = "answers" if probe.answers() else "does not answer"
            _say(f"{probe.name:<13} {state:<16} {probe.address}")


@app.command()
def clean() -> None:
    """Stop everything and remove its data, logs and secrets."""
    Stack(load_home(), _say).remove()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def airflow(context: typer.Context) -> None:
    """Run an `airflow` command (backfill create, dags list, ...) against this Airflow."""
    stack = Stack(load_home(), _say)
    record = stack.airflow.record()
    schedule = (record.schedule if record else None) or "none"
    env = airflow_environment(stack.home, stack.secrets, schedule)
    done = subprocess.run(
        [airflow_program(), *context.args], env={**process_environment(), **env}, check=False
    )
    raise typer.Exit(done.returncode)


def main() -> None:
    """Run a command; an error of ours is one line on standard error and exit code 1."""
    # A closed terminal or a time limit ends us as Ctrl-C does: what we started is stopped.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    try:
        app()
    except FerryError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
