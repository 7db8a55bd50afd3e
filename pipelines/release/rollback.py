"""Rollback: an earlier version is live again in seconds, with its labels and its vectors."""

from __future__ import annotations

import logging
from contextlib import nullcontext

from pydantic import BaseModel, ConfigDict

from pipelines.errors import ReleaseError
from pipelines.online.pointer import Pointer
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.restore import stage_again
from pipelines.release.runners import Runner
from pipelines.release.staged import missing_online
from pipelines.release.switch import hold, hold_staging, last_settled, make_switch, next_state
from pipelines.release.verify import verify_for_rollback

log = logging.getLogger(__name__)


class RollbackError(ReleaseError):
    """A rollback that can't be done as asked. Trying again can't help."""

    retryable = False


class Rollback(BaseModel):
    """What a rollback did; `problems` are replicas that do not follow yet."""

    model_config = ConfigDict(frozen=True)

    unit: str
    version: int
    replaced: int
    reason: str
    staged_again: bool
    problems: list[str] = []


def roll_back(
    context: ReleaseContext, unit: str, to: int | None, reason: str, runner: Runner
) -> Rollback:
    """Make `to`, or the live version's predecessor, live; `runner` stages it again if need be.

    A version that an older one replaces is withdrawn: neither a retry of its run nor a
    reconciliation makes it live again, only a rollback that names it.

    Raises:
        RollbackError: no reason is given, there is no such version, it was refused, it is live
            already, or something else moved the pointer since this rollback began.
        ReleaseError: the version is corrupt in object storage, or another process is at the unit.
        VerificationError: the version answers wrongly; what was live stays live.
    """
    if not reason.strip():
        raise RollbackError(f"a rollback of {unit} needs a reason: the history keeps it")
    pointer = context.online.pointers.get(unit)
    if pointer is None:
        raise RollbackError(
            f"nothing of {unit} is live in Redis at {context.online.address}: if it was lost, "
            f"'ferry restore {unit}' brings it back"
        )
    manifest = _target(context, unit, pointer, to)
    lost = missing_online(context, manifest, every_replica=False)
    # What no pointer needs, retention may be removing.
    is_needed = manifest.version in pointer.needed
    with nullcontext() if is_needed and not lost else hold_staging(context, unit):
        if lost:
            log.info("%s %s is staged again: %s", unit, manifest.version, lost[0])
            stage_again(context, manifest, runner)
        for check in verify_for_rollback(context, manifest):
            log.info("before the rollback: %s agree", check)
        with hold(context, unit) as lease:
            _require_unmoved(context, unit, pointer)
            desired = last_settled(context.registry.active(unit))
            withdrawn = dict(desired.withdrawn) if desired else {}
            withdrawn.pop(manifest.version, None)
            if manifest.version < pointer.version:
                withdrawn[pointer.version] = reason
            wanted = next_state(
                context,
                unit,
                manifest.version,
                "rollback",
                reason,
                backward=True,
                withdrawn=withdrawn,
            )
            make_switch(context, lease, wanted, manifest)
    return Rollback(
        unit=unit,
        version=manifest.version,
        replaced=pointer.version,
        reason=reason,
        staged_again=bool(lost),
        problems=missing_online(context, manifest, every_replica=True),
    )


def _target(context: ReleaseContext, unit: str, pointer: Pointer, to: int | None) -> Manifest:
    version = pointer.previous if to is None else to
    if version is None:
        raise RollbackError(
            f"{unit} {pointer.version} has no predecessor: 'ferry release list {unit}' shows the "
            "versions, --to names one"
        )
    if version == pointer.version:
        raise RollbackError(f"{unit} {version} is live already")
    manifest = context.registry.sealed(unit, version)
    if manifest.refusal:
        raise RollbackError(f"{unit} {version} was refused by its gates: {manifest.refusal}")
    return manifest


def _require_unmoved(context: ReleaseContext, unit: str, seen: Pointer) -> None:
    now = context.online.pointers.get(unit)
    if now is None or now.epoch != seen.epoch:
        desired = context.registry.active(unit)
        by = f" by {desired.who} ({desired.why})" if desired else ""
        raise RollbackError(
            f"{unit} was moved from {seen.version} to {now.version if now else 'nothing'}{by} "
            "since this rollback began; nothing was changed: look at 'ferry status' first"
        )
