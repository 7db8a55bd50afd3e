"""Making a version live without a release, for tests of what looks at the pointer."""

from __future__ import annotations

from datetime import UTC, datetime

from pipelines.online.pointer import Pointer
from pipelines.online.store import OnlineStore


def point_at(online: OnlineStore, unit: str, version: int) -> None:
    """Let the pointer name `version`, whatever it named before."""
    seen = online.pointers.epoch(unit)
    pointer = Pointer(version=version, epoch=seen + 1, since=datetime.now(UTC))
    with online.leases.hold(online.pointers.key(unit), "a test") as lease:
        online.pointers.move(
            unit, lease, seen_epoch=seen, epoch=seen + 1, target=pointer, allow_backward=True
        )
