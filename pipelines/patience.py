"""How long a service that hangs is waited for."""

from __future__ import annotations

from enum import Enum


class Patience(Enum):
    """Who waits. A service that is down, and refuses connections, keeps nobody for seconds."""

    #: A reader fails quickly: somebody waits for the answer.
    READER = "reader"
    #: A step of a run outlasts a stall of a minute without asking twice, and longer ones by asking
    #: again: failing would throw hours of work away. Five minutes without any answer end it.
    STEP = "step"


#: Seconds that a step waits for one answer.
STEP_SECONDS = 75.0
