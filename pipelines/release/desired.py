"""The desired state of a unit: what ought to be live, written before it is made so.

``releases/<unit>/active.json`` holds the current :class:`DesiredState`,
``releases/<unit>/history/<epoch>.json`` one for each move that was completed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipelines.online.pointer import Pointer

MoveKind = Literal["release", "rollback", "went_back", "repair", "retirement"]


class Retirement(BaseModel):
    """Who took a unit offline, when and why; `version` was live until then."""

    model_config = ConfigDict(frozen=True)

    unit: str
    version: int
    at: datetime
    who: str
    why: str

    @property
    def text(self) -> str:
        """All of it in a few words."""
        return f"retired by {self.who} at {self.at:%Y-%m-%d %H:%M:%S} UTC: {self.why}"


class DesiredState(BaseModel):
    """What ought to be live of a unit, and how it came to that.

    While `state` is ``switching`` the pointer may still name what `former` describes; a crash
    leaves it so, and whoever comes next completes or undoes the move
    (:mod:`pipelines.release.reconcile`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    #: None: nothing is live, because the unit was retired or because its first release failed.
    version: int | None
    #: What a rollback goes to; of a retired unit what was live until then.
    previous: int | None = None
    replaced: int | None = None
    #: Grows by every move; the pointer carries the same number.
    epoch: int
    since: datetime
    state: Literal["switching", "live"]
    kind: MoveKind
    at: datetime
    who: str
    why: str
    #: Whether the pointer may move to an older version for it.
    backward: bool = False
    #: Versions that were live before, oldest first.
    was_live: tuple[int, ...] = ()
    #: Versions that a rollback or a retirement took back, with its reason.
    withdrawn: dict[int, str] = {}
    former: DesiredState | None = None

    @property
    def retirement(self) -> Retirement | None:
        """This move as a retirement, if it is one."""
        if self.kind != "retirement" or self.replaced is None:
            return None
        return Retirement(
            unit=self.unit, version=self.replaced, at=self.at, who=self.who, why=self.why
        )

    def pointer(self) -> Pointer | None:
        """Return the pointer that this state asks for."""
        if self.version is None:
            return None
        return Pointer(
            version=self.version,
            previous=self.previous,
            replaced=self.replaced,
            epoch=self.epoch,
            since=self.since,
        )

    def settled(self) -> DesiredState:
        """Return this state once the move is complete."""
        return self.model_copy(update={"state": "live", "former": None})
