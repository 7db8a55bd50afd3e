"""How limits grow with the crowd on a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines import patience
from pipelines.patience import Deadline, crowding

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("average", "running", "times"),
    [
        (0.1, 1, 1.0),
        (CORES, CORES, 1.0),
        (10 * CORES, 1, 10.0),
        # It has come just now, or has just gone.
        (0.5, 10 * CORES, 10.0),
        (6 * CORES, 4 * CORES, 6.0),
    ],
)
def test_limits_are_as_long_as_the_queue_for_the_cores(
    tmp_path: Path, average: float, running: int, times: float
) -> None:
    load = tmp_path / "loadavg"
    load.write_text(f"{average:.2f} 0.10 0.05 {running}/612 4711\n")
    assert crowding(load) == pytest.approx(times)


def test_without_a_way_to_tell_limits_stay_as_they_are(tmp_path: Path) -> None:
    assert crowding(tmp_path / "none") == 1.0


def test_a_deadline_moves_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now, crowd = 100.0, 1.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(patience, "crowding", lambda: crowd)
    deadline = Deadline(10)
    now = 109.0
    assert not deadline.is_over
    now = 111.0
    assert deadline.is_over
    crowd = 5.0
    assert not deadline.is_over
    assert deadline.waited == 11.0
    now = 151.0
    assert deadline.is_over
