"""The switch: desired state, pointer, labels, canary reads, history; or all goes back.

The order is what makes a crash harmless. The desired state is written first, as ``switching``, so
that whoever comes next knows what was on its way; then the pointer moves in one step; then the
labels follow; then the golden rows are read as any client reads; then the move is recorded and
the desired state is settled. A crash before the pointer moved leaves the old version live, one
after it the new one, and :func:`settle` completes the move or undoes it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from pipelines.errors import FerryError
from pipelines.online.leases import Lease, LeaseLostError
from pipelines.online.pointer import Pointer
from pipelines.release.context import ReleaseContext
from pipelines.release.desired import DesiredState, MoveKind
from pipelines.release.manifest import Manifest
from pipelines.release.rules import predecessor
from pipelines.release.stage_model import follow_labels, offer_labels
from pipelines.release.verify import canary_reads, verify_for_rollback, verify_version

#: A holder that was killed keeps its lease for 30 seconds; one that lives needs a few.
SWITCH_WAIT_SECONDS = 35.0
#: How many versions a unit remembers as having been live, for the choice of a predecessor.
_REMEMBERED = 100

log = logging.getLogger(__name__)


def next_state(
    context: ReleaseContext,
    unit: str,
    version: int,
    kind: MoveKind,
    why: str,
    *,
    backward: bool,
    withdrawn: Mapping[int, str],
) -> DesiredState:
    """Return the state in which `version` is live, to be passed to :func:`make_switch`."""
    pointer = context.online.pointers.get(unit)
    former = last_settled(context.registry.active(unit))
    epoch = max(context.online.pointers.epoch(unit), former.epoch if former else 0) + 1
    # Milliseconds, as the pointer keeps them.
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    was_live = _was_live(former, pointer)
    return DesiredState(
        unit=unit,
        version=version,
        previous=predecessor(version, was_live, withdrawn),
        replaced=pointer.version if pointer else None,
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


def last_settled(state: DesiredState | None) -> DesiredState | None:
    """Return `state`, or what it was before, if it is a move that is not complete."""
    return state.former if state and state.state == "switching" else state


def live_version(pointer: Pointer | None, desired: DesiredState | None) -> int | None:
    """Return what is live: what the pointer names or, where Redis lost it, what is desired."""
    if pointer:
        return pointer.version
    return desired.version if desired else None


def _was_live(former: DesiredState | None, pointer: Pointer | None) -> tuple[int, ...]:
    versions = list(former.was_live) if former else []
    for version in (former and former.version, pointer and pointer.version):
        if version:
            versions = [v for v in versions if v != version] + [version]
    return tuple(versions[-_REMEMBERED:])


def make_switch(
    context: ReleaseContext, lease: Lease, wanted: DesiredState, manifest: Manifest
) -> DesiredState:
    """Bring about `wanted`, a state of :func:`next_state`; the version must be staged and verified.

    Raises:
        LeaseLostError: another process took over; what is live is for it to decide.
        FerryError: a step failed; what was live before is live again, or, where the services
            that failed made that impossible, will be by the next run or by `ferry reconcile`.
    """
    lease.require()
    context.registry.set_active(wanted)
    return complete(context, lease, wanted, manifest)


def complete(
    context: ReleaseContext, lease: Lease, wanted: DesiredState, manifest: Manifest
) -> DesiredState:
    """Do what is left of a move whose desired state is written; see :func:`make_switch`."""
    try:
        _move_pointer(context, lease, wanted)
        _after_the_move(context, wanted, manifest)
    except LeaseLostError:
        raise
    except FerryError as error:
        log.error("%s %s goes back: %s", wanted.unit, wanted.version, error)
        _go_back_or_say_so(context, lease, wanted, error)
        raise
    lease.require()
    return context.registry.commit(wanted)


def _move_pointer(context: ReleaseContext, lease: Lease, wanted: DesiredState) -> None:
    seen = context.online.pointers.epoch(wanted.unit)
    if seen == wanted.epoch:
        return
    context.online.pointers.move(
        wanted.unit,
        lease,
        seen_epoch=seen,
        epoch=wanted.epoch,
        target=wanted.pointer(),
        allow_backward=wanted.backward,
    )


def _after_the_move(context: ReleaseContext, wanted: DesiredState, manifest: Manifest) -> None:
    pointer = wanted.pointer()
    is_rollback = wanted.kind != "release"
    if pointer and manifest.has_model:
        if is_rollback:
            # A replica that is down must not keep a bad version live.
            offer_labels(context, wanted.unit, pointer)
        else:
            follow_labels(context, wanted.unit, pointer)
    if not is_rollback:
        for check in canary_reads(context, manifest):
            log.info("after the switch: %s agree", check)


def _go_back_or_say_so(
    context: ReleaseContext, lease: Lease, wanted: DesiredState, error: FerryError
) -> None:
    try:
        go_back(context, lease, wanted, str(error))
    except FerryError as second:
        raise type(error)(
            f"{error}; what was live before could not be put back at once ({second}): the next "
            f"run does it, or 'ferry reconcile {wanted.unit}'"
        ) from error


def go_back(context: ReleaseContext, lease: Lease, failed: DesiredState, why: str) -> None:
    """Make live again what was before `failed`, and record why.

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
    _move_pointer(context, lease, back)
    if pointer := back.pointer():
        manifest = context.registry.sealed(unit, pointer.version)
        if manifest.has_model:
            offer_labels(context, unit, pointer)
    context.registry.commit(back)


def settle(context: ReleaseContext, unit: str) -> str | None:
    """Complete or undo a move that a crash left half done; returns what was done, None if nothing.

    Raises:
        ReleaseError: another process is at it right now; it is named.
    """
    state = context.registry.active(unit)
    if state is None or state.state != "switching":
        return None
    with hold(context, unit) as lease:
        state = context.registry.active(unit)
        if state is None or state.state != "switching":
            return None
        return settle_held(context, lease, state)


def settle_held(context: ReleaseContext, lease: Lease, state: DesiredState) -> str:
    """Do :func:`settle` for `state`, which is ``switching``, under a lease that is held."""
    unit, pointer_epoch = state.unit, context.online.pointers.epoch(state.unit)
    if pointer_epoch > state.epoch:
        # Written by a process that had lost its lease: the pointer has moved on since.
        return adopt_history(context, lease, unit, pointer_epoch)
    if state.version is None:
        _move_pointer(context, lease, state)
        context.registry.commit(state)
        return f"{unit}: nothing is live, as it was before"
    manifest = context.registry.sealed(unit, state.version)
    try:
        if pointer_epoch < state.epoch:
            verify = verify_version if state.kind == "release" else verify_for_rollback
            verify(context, manifest)
    except FerryError as error:
        go_back(context, lease, state, f"not completed after a crash: {error}")
        former = state.former.version if state.former else "nothing"
        return f"{unit}: {former} stays live; {state.version} was left half-way: {error}"
    complete(context, lease, state, manifest)
    return f"{unit}: the switch to {state.version}, left half-way, is complete"


def adopt_history(context: ReleaseContext, lease: Lease, unit: str, epoch: int) -> str:
    """Make the desired state again what the history says of the pointer's epoch."""
    lease.require()
    for state in reversed(context.registry.history(unit)):
        if state.epoch == epoch:
            context.registry.set_active(state)
            return f"{unit}: the desired state is {state.version} again, as the history has it"
    pointer = context.online.pointers.get(unit)
    if pointer is None:
        context.registry.clear_active(unit)
        return f"{unit}: nothing is live, and nothing is desired"
    why = "as the pointer has it"
    state = next_state(
        context, unit, pointer.version, "repair", why, backward=True, withdrawn={}
    ).model_copy(update=pointer.model_dump())
    context.registry.commit(state)
    return f"{unit}: the desired state is {pointer.version}, which the pointer names"


def hold(
    context: ReleaseContext, unit: str, wait: float = SWITCH_WAIT_SECONDS
) -> AbstractContextManager[Lease]:
    """Hold the lease under which a unit's pointer moves."""
    key = context.online.pointers.key(unit)
    return context.online.leases.hold(key, context.owner, label=unit, wait=wait)


def hold_staging(context: ReleaseContext, unit: str) -> AbstractContextManager[Lease]:
    """Hold the lease under which a unit's versions are staged, restored and removed."""
    label = f"{unit} (staging)"
    return context.online.leases.hold(f"staging:{unit}", context.owner, label=label)
