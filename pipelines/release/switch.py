"""The switch: desired state, pointer, labels, canary reads, history; or all goes back.

The order is what makes a crash harmless. The desired state is written first, as ``switching``, so
that whoever comes next knows what was on its way; then the pointer moves in one step; then the
labels follow; then the golden rows are read as any client reads; then the move is recorded and
the desired state is settled. A crash before the pointer moved leaves the old version live, one
after it the new one, and :func:`settle` completes the move or undoes it.

A move that somebody decided on, a rollback, a retirement or a going back, is never undone: it is
recorded as soon as the pointer has moved, and labels follow where they can.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from pipelines.errors import FerryError, ReleaseError
from pipelines.online.leases import Lease, LeaseLostError
from pipelines.release.context import ReleaseContext
from pipelines.release.desired import DesiredState, MoveKind
from pipelines.release.manifest import Manifest
from pipelines.release.stage_model import follow_labels, offer_labels
from pipelines.release.state import desired_state, predecessor, standing_state
from pipelines.release.verify import canary_reads, verify_version

#: A holder that was killed keeps its lease for 30 seconds; one that lives needs a few.
SWITCH_WAIT_SECONDS = 35.0
#: How many versions a unit remembers as having been live, for the choice of a predecessor.
_REMEMBERED = 100

log = logging.getLogger(__name__)


def hold(
    context: ReleaseContext, unit: str, wait: float = SWITCH_WAIT_SECONDS
) -> AbstractContextManager[Lease]:
    """Hold the lease under which a unit's pointer moves."""
    key = context.online.pointers.key(unit)
    return context.online.leases.hold(key, context.owner, label=unit, wait=wait)


#: A run, or a check of what is live, waits so long for another one that stages the same unit.
STAGING_WAIT_SECONDS = 600.0


def hold_staging(
    context: ReleaseContext, unit: str, *, wait: float = 0.0
) -> AbstractContextManager[Lease]:
    """Hold the lease under which a unit's versions are staged, restored and removed.

    It is waited for up to `wait` seconds.
    """
    label = f"{unit} (staging)"
    return context.online.leases.hold(f"staging:{unit}", context.owner, label=label, wait=wait)


def next_state(
    context: ReleaseContext,
    unit: str,
    version: int | None,
    kind: MoveKind,
    why: str,
    *,
    backward: bool,
    withdrawn: Mapping[int, str],
) -> DesiredState:
    """Return the state in which `version` is live, to be passed to :func:`make_switch`.

    With `version` None nothing is, and a rollback goes to what was.
    """
    former = standing_state(context, unit)
    newest = context.registry.newest_epoch(unit)
    epoch = max(context.online.pointers.epoch(unit), former.epoch if former else 0, newest) + 1
    # Milliseconds, as the pointer keeps them.
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    was_live = _was_live(former)
    if version is None:
        previous = former.version if former else None
    else:
        previous = predecessor(
            context, unit, version, was_live, withdrawn, is_rollback=kind == "rollback"
        )
    return DesiredState(
        unit=unit,
        version=version,
        previous=previous,
        replaced=former.version if former else None,
        epoch=epoch,
        since=now,
        state="switching",
        kind=kind,
        at=now,
        who=context.owner,
        why=why,
        backward=backward,
        was_live=was_live,
        withdrawn=dict(withdrawn),
        former=former,
    )


def _was_live(former: DesiredState | None) -> tuple[int, ...]:
    """Return the versions that were live, the latest last."""
    if former is None:
        return ()
    versions = [v for v in former.was_live if v != former.version]
    versions += [former.version] if former.version else []
    return tuple(versions[-_REMEMBERED:])


def make_switch(
    context: ReleaseContext, lease: Lease, wanted: DesiredState, manifest: Manifest | None
) -> list[str]:
    """Bring about `wanted`, a state of :func:`next_state`; the version must be staged and verified.

    `manifest` is the version's, None where nothing shall be live. Returns what does not follow
    yet, in one line each: only labels of a rollback may.

    Raises:
        LeaseLostError: another process took over; what is live is for it to decide.
        FerryError: a step failed; what was live before is live again, or, where the services
            that failed made that impossible, will be by the next run or by `ferry reconcile`.
    """
    lease.require()
    context.registry.set_active(wanted)
    if manifest is None or wanted.kind != "release":
        return _complete_decided(context, lease, wanted, manifest)
    _complete_release(context, lease, wanted, manifest)
    return []


def _complete_release(
    context: ReleaseContext, lease: Lease, wanted: DesiredState, manifest: Manifest
) -> None:
    """Do what is left of a release whose desired state is written."""
    pointer = wanted.pointer()
    try:
        _move_pointer(context, lease, wanted)
        if pointer and manifest.has_model:
            follow_labels(context, wanted.unit, pointer)
        for check in canary_reads(context, manifest):
            log.info("after the switch: %s agree", check)
    except LeaseLostError:
        raise
    except Exception as error:
        # Whatever it is: a version that was not verified must not stay live.
        log.error("%s %s goes back: %s", wanted.unit, wanted.version, error)
        _go_back_or_say_so(context, lease, wanted, error)
        raise
    lease.require()
    context.registry.commit(wanted)


def _complete_decided(
    context: ReleaseContext, lease: Lease, wanted: DesiredState, manifest: Manifest | None
) -> list[str]:
    """Do what is left of a move that was decided; returns which replicas do not follow yet."""
    _move_pointer(context, lease, wanted)
    lease.require()
    context.registry.commit(wanted)
    pointer = wanted.pointer()
    if pointer is None or manifest is None or not manifest.has_model:
        return []
    # A replica that is down must not keep a bad version live.
    return offer_labels(context, wanted.unit, pointer)


def _move_pointer(context: ReleaseContext, lease: Lease, wanted: DesiredState) -> None:
    pointers = context.online.pointers
    seen = pointers.epoch(wanted.unit)
    if seen == wanted.epoch:
        pointer = pointers.get(wanted.unit)
        if (pointer.version if pointer else None) != wanted.version:
            raise ReleaseError(f"{wanted.unit}: another run moved the pointer meanwhile")
        return
    pointers.move(
        wanted.unit,
        lease,
        seen_epoch=seen,
        epoch=wanted.epoch,
        target=wanted.pointer(),
        allow_backward=wanted.backward,
    )


def _go_back_or_say_so(
    context: ReleaseContext, lease: Lease, wanted: DesiredState, error: Exception
) -> None:
    try:
        go_back(context, lease, wanted, str(error))
    except Exception as second:  # noqa: BLE001 - told together with the first
        kind = type(error) if isinstance(error, FerryError) else ReleaseError
        raise kind(
            f"{error}; what was live before could not be put back at once ({second}): the next "
            f"run does it, or 'ferry reconcile {wanted.unit}'"
        ) from error


def go_back(context: ReleaseContext, lease: Lease, failed: DesiredState, why: str) -> None:
    """Make live again what was before the release `failed`, and record why.

    Where the pointer has not moved yet, only the desired state is put back.
    """
    former, unit = failed.former, failed.unit
    lease.require()
    if context.online.pointers.epoch(unit) != failed.epoch:
        if former:
            context.registry.set_active(former)
        else:
            context.registry.clear_active(unit)
        return
    back = DesiredState(
        unit=unit,
        version=former.version if former else None,
        previous=former.previous if former else None,
        replaced=failed.version,
        epoch=failed.epoch + 1,
        since=former.since if former else failed.at,
        state="switching",
        kind="went_back",
        at=datetime.now(UTC),
        who=context.owner,
        why=f"{failed.version} went back: {why}",
        backward=True,
        was_live=former.was_live if former else (),
        withdrawn=former.withdrawn if former else {},
        former=former,
    )
    context.registry.set_active(back)
    manifest = context.registry.manifest(unit, back.version) if back.version else None
    _complete_decided(context, lease, back, manifest)


def settle(
    context: ReleaseContext, unit: str, stage: Callable[[Manifest], object] | None = None
) -> str | None:
    """Complete or undo what a crash left half done; returns what was done, None if nothing.

    `stage` brings a version online that is not: for the target of a rollback that was decided.

    Raises:
        ReleaseError: another process is at it right now; it is named.
    """
    if _is_settled(context, unit):
        return None
    with hold(context, unit) as lease:
        state = desired_state(context, unit)
        if _is_settled(context, unit) or state is None:
            return None
        if state.state == "switching":
            return _settle_move(context, lease, state, stage)
        lease.require()
        if state.kind == "repair":
            context.registry.commit(state)
        else:
            context.registry.set_active(state)
        return f"{unit}: the desired state is {state.version or 'nothing'} again"


def _is_settled(context: ReleaseContext, unit: str) -> bool:
    state = desired_state(context, unit)
    return context.registry.active(unit) == state and (state is None or state.state == "live")


def _settle_move(
    context: ReleaseContext,
    lease: Lease,
    state: DesiredState,
    stage: Callable[[Manifest], object] | None,
) -> str:
    unit = state.unit
    done = f"{unit}: the switch to {state.version or 'nothing'}, left half-way, is complete"
    manifest = context.registry.sealed(unit, state.version) if state.version else None
    if manifest is None or state.kind != "release":
        if manifest and stage:
            stage(manifest)
        _complete_decided(context, lease, state, manifest)
        return done
    try:
        if context.online.pointers.epoch(unit) != state.epoch:
            verify_version(context, manifest)
        _complete_release(context, lease, state, manifest)
    except LeaseLostError:
        raise
    except FerryError as error:
        if _is_settled(context, unit):
            return _stays(context, unit, state, error)
        if context.online.pointers.epoch(unit) == state.epoch:
            raise
        go_back(context, lease, state, f"not completed after a crash: {error}")
        return _stays(context, unit, state, error)
    return done


def _stays(context: ReleaseContext, unit: str, failed: DesiredState, error: FerryError) -> str:
    pointer = context.online.pointers.get(unit)
    live = pointer.version if pointer else "nothing"
    return f"{unit}: {live} is live; the switch to {failed.version}, left half-way, failed: {error}"
