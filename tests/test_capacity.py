"""How much goes on at the same time on machines of several sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.capacity import Machine, describe, driver_memory, heavy_tasks

GB = 1 << 30


@pytest.mark.parametrize(
    ("cores", "gigabytes", "steps", "heap_gigabytes"),
    [
        (1, 2, 1, 1),
        (2, 4, 1, 1),
        (2, 8, 2, 1.5),
        (4, 8, 2, 1.5),
        (2, 24, 2, 4),
        (8, 16, 4, 1.95),
        (64, 256, 4, 4),
    ],
)
def test_steps_and_heap_follow_from_cores_and_memory(
    cores: int, gigabytes: int, steps: int, heap_gigabytes: float
) -> None:
    machine = Machine(cores, gigabytes * GB)
    assert machine.heavy_tasks() == steps
    assert machine.heap(steps) == pytest.approx(heap_gigabytes * GB, abs=1 << 20)


@pytest.mark.parametrize("gigabytes", [8, 12, 16, 24, 32])
@pytest.mark.parametrize("cores", [2, 3, 4, 8])
def test_half_of_the_memory_of_all_steps_is_left_to_what_is_no_heap(
    cores: int, gigabytes: int
) -> None:
    machine = Machine(cores, gigabytes * GB)
    steps = machine.heavy_tasks()
    assert steps * machine.heap(steps) <= 0.6 * (gigabytes - 3) * GB


def test_a_container_has_what_it_is_given(tmp_path: Path) -> None:
    whole = Machine.here(tmp_path)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert Machine.here(tmp_path) == whole
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{GB}\n")
    assert Machine.here(tmp_path) == Machine(1, GB)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert Machine.here(tmp_path).cores == 1


def test_what_is_configured_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FERRY_SPARK_DRIVER_MEMORY", raising=False)
    monkeypatch.delenv("FERRY_HEAVY_TASKS", raising=False)
    machine = Machine.here()
    assert heavy_tasks(None) == machine.heavy_tasks()
    assert heavy_tasks(7) == 7
    assert driver_memory(1) == f"{machine.heap(1) >> 20}m"
    monkeypatch.setenv("FERRY_HEAVY_TASKS", "3")
    monkeypatch.setenv("FERRY_SPARK_DRIVER_MEMORY", "900m")
    assert (heavy_tasks(None), heavy_tasks(2), driver_memory(None)) == (3, 2, "900m")
    assert describe(1) == (
        f"{machine.describe()}: 1 task at a time that train or compute features, each with a Java "
        "heap of at most 900m"
    )
