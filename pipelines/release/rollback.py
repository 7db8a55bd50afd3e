"""Rollback: an earlier version is live again in seconds, with its labels and its vectors."""

from __future__ import annotations

import logging

from pydantic import BaseModel, ConfigDict

from pipelines.errors import ReleaseError
from pipelines.online.pointer import Pointer
from pipelines.release.context import ReleaseContext
from pipelines.release.desired import Retirement
from pipelines.release.manifest import Manifest
from pipelines.release.restore import stage_again
from pipelines.release.retire import complete_retirement
from pipelines.release.runners import Runner
from pipelines.release.staged import missing_online, missing_tables
from pipelines.release.state import desired_state, retirement_behind, standing_state
from pipelines.release.switch import hold, hold_staging, make_switch, next_state, settle
from pipelines.release.verify import verify_for_rollback

log = logging.getLogger(__name__)


class RollbackError(ReleaseError):
    """A rollback that can't be done as asked. Trying again can't help."""

    retryable = False


class Rollback(BaseModel):
    """What a rollback did; `problems` are replicas that do not follow yet.

    `replaced` is None if nothing was live: the unit was retired.
    """

    model_config = ConfigDict(frozen=True)

    unit: str
    version: int
    replaced: int | None
    reason: str
    staged_again: bool
    problems: list[str] = []


def roll_back(
    context: ReleaseContext,
    unit: str,
    to: int | None,
    reason: str,
    runner: Runner,
    *,
    once: bool = False,
) -> Rollback:
    """Make `to`, or what was live before, live; `runner` stages it again if need be.

    The version that it replaces is withdrawn, unless `to` names a newer one: neither a retry of its
    run nor a reconciliation makes it live again, only a rollback that names it. A retired unit
    comes back: without `to`, the version that was live until then.

    A rollback that was left half-way is completed, and counts as this one. With `once`, so does one
    that the same owner has completed: a retry must not roll back twice.

    Raises:
        RollbackError: no reason is given, there is no such version, it was refused, it is live
            already, or something else moved the pointer since this rollback began.
        ReleaseError: the version is corrupt in object storage, or another process is at the unit.
        VerificationError: the version answers wrongly; what was live stays live.
    """
    if not reason.strip():
        raise RollbackError(f"a rollback of {unit} needs a reason: the history keeps it")
    if done := _done_before(context, unit, to, runner, once=once):
        return done
    complete_retirement(context, unit)
    pointer = context.online.pointers.get(unit)
    seen_epoch = pointer.epoch if pointer else context.online.pointers.epoch(unit)
    now = pointer or retirement_behind(context, standing_state(context, unit))
    if now is None:
        raise RollbackError(
            f"nothing of {unit} is live in Redis at {context.online.address}: if it was lost, "
            f"'ferry restore {unit}' brings it back"
        )
    manifest = _target(context, unit, now, to)
    lost = missing_online(context, manifest, every_replica=False)
    if lost:
        log.info("%s %s is staged again: %s", unit, manifest.version, lost[0])
        with hold_staging(context, unit):
            stage_again(context, manifest, runner)
    for check in verify_for_rollback(context, manifest):
        log.info("before the rollback: %s agree", check)
    with hold(context, unit) as lease:
        _require_unmoved(context, unit, pointer, seen_epoch)
        # Retention removes under this lease what no pointer needs: it may have been this.
        context.registry.sealed(unit, manifest.version)
        if missing := missing_tables(context, manifest):
            raise ReleaseError(f"{missing[0]}: it was removed just now, try again")
        withdrawn = _withdrawn(context, pointer, manifest, to, reason)
        wanted = next_state(
            context, unit, manifest.version, "rollback", reason, backward=True, withdrawn=withdrawn
        )
        problems = make_switch(context, lease, wanted, manifest)
    return Rollback(
        unit=unit,
        version=manifest.version,
        replaced=pointer.version if pointer else None,
        reason=reason,
        staged_again=bool(lost),
        problems=problems,
    )


def _done_before(
    context: ReleaseContext, unit: str, to: int | None, runner: Runner, *, once: bool
) -> Rollback | None:
    """Return the rollback that this one would only repeat, complete."""
    state = desired_state(context, unit)
    if state is None or state.kind != "rollback" or to not in (None, state.version):
        return None
    if state.state == "switching":
        log.info(settle(context, unit, lambda m: stage_again(context, m, runner)))
    elif not (once and state.who == context.owner):
        return None
    return Rollback(
        unit=unit,
        version=state.version or 0,
        replaced=state.replaced,
        reason=state.why,
        staged_again=False,
    )


def _withdrawn(
    context: ReleaseContext,
    pointer: Pointer | None,
    manifest: Manifest,
    to: int | None,
    reason: str,
) -> dict[int, str]:
    desired = desired_state(context, manifest.unit)
    withdrawn = dict(desired.withdrawn) if desired else {}
    withdrawn.pop(manifest.version, None)
    if pointer and (to is None or manifest.version < pointer.version):
        withdrawn[pointer.version] = reason
    return withdrawn


def _target(
    context: ReleaseContext, unit: str, now: Pointer | Retirement, to: int | None
) -> Manifest:
    undone = now.version if isinstance(now, Retirement) else now.previous
    version = undone if to is None else to
    if version is None:
        raise RollbackError(
            f"{unit} {now.version} has no predecessor: 'ferry release list {unit}' shows the "
            "versions, --to names one"
        )
    if isinstance(now, Pointer) and version == now.version:
        raise RollbackError(f"{unit} {version} is live already")
    manifest = context.registry.sealed(unit, version)
    if manifest.refusal:
        raise RollbackError(f"{unit} {version} was refused by its gates: {manifest.refusal}")
    return manifest


def _require_unmoved(
    context: ReleaseContext, unit: str, seen: Pointer | None, seen_epoch: int
) -> None:
    now = context.online.pointers.get(unit)
    before, after = (p.version if p else "nothing" for p in (seen, now))
    if before != after or context.online.pointers.epoch(unit) != seen_epoch:
        desired = desired_state(context, unit)
        by = f" by {desired.who} ({desired.why})" if desired else ""
        raise RollbackError(
            f"{unit} was moved from {before} to {after}{by} since this rollback began; nothing "
            "was changed: look at 'ferry status' first"
        )
