"""What to do next with the versions of a model, so that some version always answers."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class State(enum.IntEnum):
    """Life-cycle states, numbered as in ``ModelVersionStatus.State``."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Verb(enum.Enum):
    """The two things that can be done with a version."""

    LOAD = "load"
    UNLOAD = "unload"


@dataclass(frozen=True)
class Snapshot:
    """One version as the policy sees it; ``aspired`` means it ought to be served."""

    version: int
    aspired: bool
    state: State


@dataclass(frozen=True)
class Action:
    """The next step."""

    verb: Verb
    version: int


def next_action(versions: Iterable[Snapshot]) -> Action | None:
    """Return the next step for one model, or None when nothing can be done now.

    The rule of ``core/availability_preserving_policy.cc``: a version that is no longer aspired
    goes (lowest first) once an aspired one is AVAILABLE, or when none is aspired at all; then new
    versions are loaded, highest first. A new version that fails therefore never costs the old one.
    """
    known = list(versions)
    aspired = [item for item in known if item.aspired]
    if not aspired or any(item.state is State.AVAILABLE for item in aspired):
        stale = [
            item.version for item in known if not item.aspired and item.state is State.AVAILABLE
        ]
        if stale:
            return Action(Verb.UNLOAD, min(stale))
    new = [item.version for item in aspired if item.state is State.START]
    return Action(Verb.LOAD, max(new)) if new else None
