"""What `make run` says at its end."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local.airflow_api import TaskInstance
from local.critical_path import TaskSpan, critical_path, describe
from local.dag_run import DagRun
from local.home import Home
from local.run_view import NOT_RUN
from local.task_log import error_of
from pipelines.lake import Lake
from pipelines.work_time import JavaTime, WorkTime, seconds_at_work, work_times

_INGEST = "ingest"
_OUTCOME_COLOURS = {"live": "green", "unchanged": "green", "failed": "bold red"}


def print_report(console: Console, home: Home, run: DagRun, seconds: float) -> None:
    """Print what became of the run: errors, what went live, durations, and what to try next."""
    tasks = run.tasks()
    _print_errors(console, run, tasks)
    version = run.version()
    _print_units(console, home, version)
    _print_durations(console, tasks, seconds, home, version)
    _print_suggestions(console, home, version)


def _print_errors(console: Console, run: DagRun, tasks: list[TaskInstance]) -> None:
    for task in tasks:
        if task.state == "failed":
            log = run.log_of(task)
            heading = f"[bold red]{task.task_id} failed:[/]"
            console.print(f"{heading} {escape(error_of(log))}", soft_wrap=True)
            console.print(f"  log: {escape(str(log))}", soft_wrap=True)


def _print_units(console: Console, home: Home, version: int | None) -> None:
    if version is None:
        return
    file = Path(Lake(str(home.lake)).run(version).summary)
    if not file.exists():
        console.print(f"version {version}: the run did not get as far as its summary")
        return
    from pipelines.release.outcome import RunSummary

    summary = RunSummary.model_validate_json(file.read_text())
    table = Table(
        "unit",
        "outcome",
        "live version",
        "metrics of this run, beside their baselines",
        title=f"Run date {summary.run_date}, version {summary.version}",
        title_justify="left",
    )
    for unit in summary.units:
        colour = _OUTCOME_COLOURS.get(unit.outcome, "yellow")
        details = [f"{name} {metric.describe()}" for name, metric in unit.metrics.items()]
        if unit.outcome != "live":
            details.insert(0, unit.reason)
        table.add_row(
            unit.unit,
            f"[{colour}]{unit.outcome}[/]",
            "nothing" if unit.version is None else str(unit.version),
            escape("\n".join(details)),
        )
    console.print(table)


def _print_durations(
    console: Console, tasks: list[TaskInstance], seconds: float, home: Home, version: int | None
) -> None:
    table = Table("task", "state", "seconds", title="Tasks", title_justify="left")
    table.columns[2].justify = "right"
    for task in tasks:
        took = "" if task.duration is None or task.state in NOT_RUN else f"{task.duration:.1f}"
        table.add_row(task.task_id, task.state or "not started", took)
    table.add_row("[bold]whole run[/]", "", f"{seconds:.1f}")
    works = [] if version is None else work_times(Lake(str(home.lake)).run(version))
    if works:
        # The rest is scheduling, and the start of processes that nothing else was done beside.
        table.add_row("at work", "", f"{seconds_at_work(works):.1f}")
    console.print(table)
    spans = [
        TaskSpan(task.task_id, task.start_date, task.start_date + timedelta(seconds=task.duration))
        for task in tasks
        if task.start_date and task.duration is not None and task.state not in NOT_RUN
    ]
    if spans:
        console.print(describe(critical_path(spans), java_by_task(spans, works)), soft_wrap=True)


def java_by_task(spans: Sequence[TaskSpan], works: Sequence[WorkTime]) -> dict[str, JavaTime]:
    """Return what Java spent in each task.

    Not each step is done by its own task: a small lake's features come with its ingest.
    """
    began = {span.task_id: span.began for span in spans}
    spent: dict[str, JavaTime] = {}
    for work in works:
        task = _task_of(work.step)
        if task in began and work.ended < began[task]:
            task = _INGEST
        if work.java:
            spent[task] = spent[task].plus(work.java) if task in spent else work.java
    return spent


def _task_of(step: str) -> str:
    """Return the task of a step: that of ``build recs`` is ``recs.build``."""
    name, _, unit = step.partition(" ")
    return f"{unit}.{name}" if unit else name


def _print_suggestions(console: Console, home: Home, version: int | None) -> None:
    examples = _examples(home, version)
    if examples is None:
        return
    user, items = examples
    console.print("Try next:")
    for arguments in (
        ["recommend", user],
        ["similar", items[0]],
        ["rank", user, *items],
    ):
        console.print(f"  {_ferry_command()} {shlex.join(arguments)}", soft_wrap=True)


def _ferry_command() -> str:
    program = Path(sys.prefix) / "bin" / "ferry"
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    home = os.environ.get("FERRY_HOME")
    return f"FERRY_HOME={shlex.quote(home)} {program}" if home else str(program)


def _examples(home: Home, version: int | None) -> tuple[str, list[str]] | None:
    """Return a user and three items of the run's own data, or of the lake's if it made none."""
    if version is None:
        return None
    import pyarrow.dataset as ds

    lake = Lake(str(home.lake))
    paths = lake.run(version)
    for events, catalogue in ((paths.events, paths.items), (lake.ratings, lake.items)):
        if Path(events).exists() and Path(catalogue).exists():
            break
    else:
        return None
    users = _first(ds.dataset(events), "user_id", 1)
    items = _first(ds.dataset(catalogue), "item_id", 3)
    return (users[0], items) if users and items else None


def _first(table: Any, column: str, count: int) -> list[str]:
    return [str(value) for value in table.head(count, columns=[column])[column].to_pylist()]
