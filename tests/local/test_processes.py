from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.commands import Command
from local.health import wait_until
from local.home import Home
from local.processes import Group

_FAILS = "import time; print('begun', flush=True); time.sleep({seconds}); raise SystemExit(3)"


@pytest.fixture
def group(home: Home) -> Iterator[Group]:
    group = Group(home, "airflow")
    yield group
    group.stop()


def start(group: Group, seconds: float, restart_after: int | None) -> Path:
    """Start a program that fails after `seconds`; returns its log."""
    argv = (sys.executable, "-c", _FAILS.format(seconds=seconds))
    group.start([Command("scheduler", argv, restart_after=restart_after)], {}, "any")
    return group.log("scheduler")


def test_a_program_that_fails_is_started_again_until_the_group_is_stopped(group: Group) -> None:
    log = start(group, 1.5, restart_after=1)
    assert wait_until(lambda: log.exists() and log.read_text().count("begun") == 3, 60)
    assert "scheduler failed and is started again" in log.read_text()
    assert group.is_running()
    assert group.stop()
    assert not group.is_running()
    times = log.read_text().count("begun")
    assert not wait_until(lambda: log.read_text().count("begun") > times, 3)


@pytest.mark.parametrize("restart_after", [None, 60])
def test_a_program_that_fails_at_its_start_ends_the_group(
    group: Group, restart_after: int | None
) -> None:
    log = start(group, 0.1, restart_after)
    assert wait_until(lambda: not group.is_running(), 30)
    assert log.read_text() == "begun\n"
    assert group.first_to_stop() == "scheduler"
