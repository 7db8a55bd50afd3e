"""What a run depends on stands still for a minute, as under a closed lid or a snapshot."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil
import pytest

from tests.installation import RUN_SECONDS, Dags, Installation
from tests.operating.operated import DAG, LAST, TRAINING_DAYS, live_version, wait_for

STALL_SECONDS = 60.0
#: What other tests set, so that they need not wait for minutes. Here all is as Ferry has it.
_OVERRIDES = (
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL",
)

pytestmark = pytest.mark.timeout(RUN_SECONDS + 300)


def command(process: psutil.Process) -> str:
    """Return the command line; nothing of a process that has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def group(ferry: Installation, name: str, word: str) -> list[psutil.Process]:
    """Return those of the "services", or of "airflow", whose command line has this word."""
    folder, procfile = str(ferry.folder / "home" / "run"), f"{name}.procfile"
    found = {
        process.pid: process
        for process in psutil.process_iter()
        if f" {folder} " in (line := command(process)) and f" {procfile}" in line
    }
    (manager,) = (process for process in found.values() if process.ppid() not in found)
    return [p for p in manager.children(recursive=True) if word in command(p)]


def scheduler(ferry: Installation) -> psutil.Process:
    """Return the scheduler itself, without the shell above it and what it forked."""
    return next(p for p in group(ferry, "airflow", "airflow scheduler ") if p.name() != "sh")


def worker(ferry: Installation) -> list[psutil.Process]:
    """Return the executor's worker that runs a task, with the task."""
    trees = [[child, *child.children(recursive=True)] for child in scheduler(ferry).children()]
    return max(trees, key=len)


@contextmanager
def stopped(stalled: Sequence[psutil.Process]) -> Iterator[None]:
    try:
        for process in stalled:
            # A helper of the task's may end while it is looked at.
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in stalled:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def stall_during(dags: Dags, run_id: str, task_id: str, ferry: Installation, *what: str) -> None:
    """Wait until a task is at work, and stop some of what it needs."""

    def is_at_work() -> bool:
        states = {task.task_id: task.state for task in dags.api.task_instances(DAG, run_id)}
        assert states[task_id] in (None, "scheduled", "queued", "running"), states
        return states[task_id] == "running"

    wait_for(is_at_work, f"{task_id} did not start")
    found = {
        "worker": lambda: worker(ferry),
        "scheduler": lambda: [scheduler(ferry)],
        "api-server": lambda: group(ferry, "airflow", "airflow api_server"),
        "redis": lambda: group(ferry, "services", "redis-server "),
        "s3": lambda: group(ferry, "services", "rclone serve s3"),
    }
    stalled = [process for name in what for process in found[name]()]
    assert len(stalled) >= len(what), stalled
    with stopped(stalled):
        time.sleep(STALL_SECONDS)


def test_a_run_outlasts_a_stall_of_whatever_it_needs(ferry: Installation) -> None:
    conf = {
        "run_date": LAST.isoformat(),
        "units": ["recs"],
        "training_days": TRAINING_DAYS,
        # From the same data another test may have something live.
        "train_again": True,
    }
    with ferry.airflow(without=_OVERRIDES) as dags:
        run_id = dags.trigger(DAG, conf)
        # A task whose scheduler or worker is at fault is reset or killed, one whose service is
        # fails with an error that names it: which of two it was can be told.
        stall_during(dags, run_id, "recs.build", ferry, "worker")
        stall_during(dags, run_id, "recs.stage", ferry, "redis", "scheduler")
        stall_during(dags, run_id, "recs.activate", ferry, "s3", "api-server")
        run = dags.wait(DAG, run_id)
        tasks = dags.api.task_instances(DAG, run_id)
        version = dags.version(DAG, run_id)
    assert run.state == "success", run.logs
    assert {task.task_id: task.try_number for task in tasks if task.try_number > 1} == {}
    seconds = {task.task_id: task.duration or 0.0 for task in tasks}
    for task_id in ("recs.build", "recs.stage", "recs.activate"):
        assert seconds[task_id] > 0.8 * STALL_SECONDS, seconds
    assert live_version(ferry) == version
