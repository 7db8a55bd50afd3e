"""How much of a run goes on at the same time, from the machine's cores and memory.

Measured on ml-latest-small, a step takes about its Java heap once more for Python, TensorFlow and
what Java has outside of its heap; Airflow and the services take some 3 GB.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_GB = 1 << 30
_MB = 1 << 20
_SERVICES = 3 * _GB
#: Memory of a step that trains, with a heap of 1,500 MB.
_STEP = 2.5 * _GB
_HEAP_SHARE = 0.6
_LEAST_HEAP, _LARGEST_HEAP = _GB, 4 * _GB
#: More steps at a time than units without each other's data would wait for the disk.
_MOST_STEPS = 4
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """Cores and bytes of memory that this process may use."""

    cores: int
    memory: int

    @classmethod
    def here(cls, cgroup: Path = _CGROUP) -> Machine:
        """Return this machine, or what of it the container is given."""
        cores = len(os.sched_getaffinity(0))
        quota, _, period = _read(cgroup / "cpu.max").partition(" ")
        if quota.isdigit():
            cores = max(1, min(cores, int(quota) // int(period)))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        for name in ("memory.max", "memory/memory.limit_in_bytes"):
            limit = _read(cgroup / name)
            if limit.isdigit():
                memory = min(memory, int(limit))
        return cls(cores, memory)

    def heavy_tasks(self) -> int:
        """Return how many steps that train fit in at the same time."""
        fitting = int((self.memory - _SERVICES) // _STEP)
        return max(1, min(fitting, self.cores, _MOST_STEPS))

    def heap(self, heavy_tasks: int) -> int:
        """Return the bytes of heap for the Java of each of so many steps, in whole megabytes."""
        share = _HEAP_SHARE * (self.memory - _SERVICES) / heavy_tasks
        return int(min(max(share, _LEAST_HEAP), _LARGEST_HEAP)) // _MB * _MB

    def describe(self) -> str:
        """Return cores and memory in words."""
        return f"{self.cores} cores, {self.memory / _GB:.1f} GB"


def heavy_tasks(configured: int | None) -> int:
    """Return how many tasks that train run at the same time.

    `configured` is ``operations.heavy_tasks``; None: what ``FERRY_HEAVY_TASKS`` says, and without
    it what fits this machine.
    """
    return configured or int(os.environ.get("FERRY_HEAVY_TASKS") or Machine.here().heavy_tasks())


def driver_memory(configured: int | None) -> str:
    """Return the most that a step's Java takes for its heap, as Java writes it.

    What ``FERRY_SPARK_DRIVER_MEMORY`` says, and without it what fits this machine beside the other
    steps; `configured` as of :func:`heavy_tasks`.
    """
    if set_by_hand := os.environ.get("FERRY_SPARK_DRIVER_MEMORY"):
        return set_by_hand
    return f"{Machine.here().heap(heavy_tasks(configured)) // _MB}m"


def describe(configured: int | None) -> str:
    """Return in one line how much goes on at the same time; `configured` as before."""
    count = heavy_tasks(configured)
    return (
        f"{Machine.here().describe()}: {count} task{'s' * (count != 1)} at a time that train or "
        f"compute features, each with a Java heap of at most {driver_memory(configured)}"
    )


def _read(path: Path) -> str:
    """Return the content of a small file of the kernel; nothing where it does not exist."""
    try:
        return path.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
