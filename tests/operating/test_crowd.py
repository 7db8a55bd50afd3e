"""Twenty processes that never rest share the cores with a run: it takes longer, and that is all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.installation import Installation
from tests.operating.operated import DAG, LAST, TRAINING_DAYS, live_version

_BUSY = 20

pytestmark = [pytest.mark.crowd, pytest.mark.timeout(7200)]


@contextmanager
def crowd(count: int) -> Iterator[None]:
    """Keep the cores busy, each process in a session of its own: some kernels share by session."""
    program = (sys.executable, "-c", "while True: pass")
    busy = [subprocess.Popen(program, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()


def test_a_daily_run_on_a_crowded_machine_ends_green_without_a_retry(ferry: Installation) -> None:
    conf = {
        "run_date": LAST.isoformat(),
        "units": ["recs"],
        "training_days": TRAINING_DAYS,
        "train_again": True,
    }
    with crowd(_BUSY), ferry.airflow() as dags:
        run_id = dags.trigger(DAG, conf)
        run = dags.wait(DAG, run_id)
        tasks = dags.api.task_instances(DAG, run_id)
        version = dags.version(DAG, run_id)
    assert run.state == "success", run.logs
    assert {task.task_id: task.try_number for task in tasks if task.try_number > 1} == {}
    assert live_version(ferry) == version
