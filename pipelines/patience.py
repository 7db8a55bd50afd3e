"""How long a service that hangs is waited for.

Limits are those of a quiet machine. Where twenty processes share two cores, everything takes ten
times as long, and what takes longer than a limit need not hang: so limits grow with the crowd.
"""

from __future__ import annotations

import os
import time
from enum import Enum
from pathlib import Path

_LOAD = Path("/proc/loadavg")


class Patience(Enum):
    """Who waits. A service that is down, and refuses connections, keeps nobody for seconds."""

    #: A reader fails quickly: somebody waits for the answer.
    READER = "reader"
    #: A step of a run outlasts a stall of a minute without asking twice, and longer ones by asking
    #: again: failing would throw hours of work away. Five minutes without any answer end it.
    STEP = "step"


#: Seconds that a step waits for one answer.
STEP_SECONDS = 75.0


def crowding(load: Path = _LOAD) -> float:
    """Return by how many times more processes want to run than there are cores; at least 1.

    Over the last minute, or at this moment, whichever is more: a crowd may have come just now.
    """
    try:
        average, _, _, running, _ = load.read_text().split()
    except (OSError, ValueError):
        # No Linux: no way to tell.
        return 1.0
    wanting = max(float(average), float(running.partition("/")[0]))
    return max(1.0, wanting / len(os.sched_getaffinity(0)))


def patient(seconds: float) -> float:
    """Return how long is to be waited for what takes at most `seconds` on a quiet machine."""
    return seconds * crowding()


class Deadline:
    """The end of a wait for what takes at most `seconds` on a quiet machine.

    It moves with the crowd: ask again at each look.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self.waited > patient(self._seconds)

    @property
    def waited(self) -> float:
        """Return the seconds since the wait began."""
        return time.monotonic() - self._began
