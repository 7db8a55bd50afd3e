"""What ought to be live of a unit, as object storage and the pointer tell it together.

``active.json`` is the answer as long as it is at least as new as the pointer. It can be older, or
of a move that never came about: a process that had lost its lease may write late, and a file can
get lost. Then the history of completed moves has the answer or, where that does not reach so far,
the pointer itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pipelines.online.pointer import Pointer
from pipelines.release.context import ReleaseContext
from pipelines.release.desired import DesiredState, Retirement
from pipelines.release.rules import previous_of


def desired_state(context: ReleaseContext, unit: str) -> DesiredState | None:
    """Return the desired state of a unit, or None if nothing of it was ever live."""
    state = context.registry.active(unit)
    pointer, epoch = context.online.pointers.get(unit), context.online.pointers.epoch(unit)
    if state and (state.epoch > epoch or _is_made_of(state, pointer, epoch)):
        return state
    newest = context.registry.newest_move(unit)
    if newest and (newest.epoch > epoch or _is_made_of(newest, pointer, epoch)):
        return newest
    return as_pointed(context, unit, pointer, newest) if pointer else None


def _is_made_of(state: DesiredState, pointer: Pointer | None, epoch: int) -> bool:
    # By the version too: a late writer may have taken an epoch for itself that another one used.
    return state.epoch == epoch and state.version == (pointer.version if pointer else None)


def as_pointed(
    context: ReleaseContext, unit: str, pointer: Pointer, known: DesiredState | None
) -> DesiredState:
    """Return the state that the pointer tells of, with what else is `known` of the unit."""
    return DesiredState(
        unit=unit,
        version=pointer.version,
        previous=pointer.previous,
        replaced=pointer.replaced,
        epoch=pointer.epoch,
        since=pointer.since,
        state="live",
        kind="repair",
        at=pointer.since,
        who=context.owner,
        why="as the pointer has it",
        was_live=known.was_live if known else (),
        withdrawn=known.withdrawn if known else {},
    )


def standing_state(context: ReleaseContext, unit: str) -> DesiredState | None:
    """Return the state that stands now: what a move that is under way would go back to.

    A move whose pointer has moved stands, though it is not recorded yet. Where Redis came back
    with older data, what its pointer names stands, since that is what readers get.
    """
    state, pointer = desired_state(context, unit), context.online.pointers.get(unit)
    epoch = context.online.pointers.epoch(unit)
    if state and state.state == "switching":
        state = state.settled() if state.epoch == epoch else state.former
    if pointer and (state is None or state.epoch != pointer.epoch):
        return as_pointed(context, unit, pointer, state)
    return state


def live_state(context: ReleaseContext, unit: str) -> DesiredState | None:
    """Return the state that is live or, where Redis lost it or has older data, that ought to be.

    Unlike :func:`standing_state`, where Redis has older data this is what object storage says.
    """
    state = desired_state(context, unit)
    if state and state.state == "switching":
        is_moved = context.online.pointers.epoch(unit) == state.epoch
        return state if is_moved else state.former
    return state


def live_version(context: ReleaseContext, unit: str) -> int | None:
    """Return what is live or, where Redis lost it or has older data, what ought to be."""
    state = live_state(context, unit)
    if state:
        return state.version
    pointer = context.online.pointers.get(unit)
    return pointer.version if pointer else None


def retirement_behind(context: ReleaseContext, state: DesiredState | None) -> Retirement | None:
    """Return the retirement for which nothing is live in `state`, or None.

    A release that was tried since then and went back leaves the unit retired.
    """
    if state is None or state.version is not None:
        return None
    if state.retirement:
        return state.retirement
    for move in context.registry.newest_moves(state.unit):
        if move.version is not None or move.retirement:
            return move.retirement
    return None


def predecessor(
    context: ReleaseContext,
    unit: str,
    version: int,
    was_live: Sequence[int],
    withdrawn: Collection[int],
    *,
    is_rollback: bool,
) -> int | None:
    """Return what a rollback from `version` would go to: the first choice that is still sealed."""
    candidates = [v for v in was_live if v not in withdrawn]
    while previous := previous_of(version, candidates, is_rollback=is_rollback):
        if context.registry.manifest(unit, previous):
            break
        candidates.remove(previous)
    return previous


def protected_versions(context: ReleaseContext, unit: str) -> frozenset[int]:
    """Return the versions that must stay whole: what the pointer and each known state need."""
    pointer, state = context.online.pointers.get(unit), desired_state(context, unit)
    needed = pointer.needed if pointer else frozenset()
    while state:
        needed |= _needed(context, state)
        state = state.former
    return needed


def _needed(context: ReleaseContext, state: DesiredState) -> frozenset[int]:
    pointer = state.pointer()
    if pointer:
        return pointer.needed
    if state.previous is None:
        return frozenset()
    # A return from retirement needs what was live, and what a rollback from there goes to.
    before = predecessor(
        context, state.unit, state.previous, state.was_live, state.withdrawn, is_rollback=True
    )
    return frozenset(v for v in (state.previous, before) if v)
