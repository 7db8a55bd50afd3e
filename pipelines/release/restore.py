"""Restore: what ought to be live is brought back from object storage, without training.

For an emptied Redis, an emptied disk of the model servers, or a replica that is new.
"""

from __future__ import annotations

import logging

from pipelines.errors import FerryError, ReleaseError
from pipelines.release.context import ReleaseContext
from pipelines.release.desired import DesiredState
from pipelines.release.manifest import Manifest
from pipelines.release.runners import Runner
from pipelines.release.stage_model import bring_model, missing_on_disk, offer_labels, serve
from pipelines.release.staged import missing_online, stage_missing_tables
from pipelines.release.state import desired_state, retirement_behind
from pipelines.release.switch import hold, hold_staging, settle
from pipelines.release.verify import canary_reads, verify_version

log = logging.getLogger(__name__)

#: How the lines of :func:`reconcile` begin that tell of what could not be repaired.
NOT_YET, NOT_STAGED = "not yet: ", "not staged, so that a rollback would take longer: "


def stage_again(context: ReleaseContext, manifest: Manifest, runner: Runner) -> None:
    """Bring online what of a version is missing there, verified like a release.

    Raises:
        ReleaseError: an artifact is not what the manifest sealed.
    """
    if manifest.tables:
        stage_missing_tables(context, manifest, runner)
    if manifest.has_model:
        bring_model(context, manifest)
        serve(context, manifest)


def reconcile(
    context: ReleaseContext, unit: str, runner: Runner, *, wait: float = 0.0
) -> list[str]:
    """Make Redis and every replica what object storage says of a unit; returns what was done.

    A move that a crash left half-way is completed or undone first. A staging that is under way is
    waited for up to `wait` seconds.

    Raises:
        ReleaseError: another process is at the unit, an artifact is corrupt, or a replica can't
            serve the model.
    """
    settled = settle(context, unit, lambda manifest: stage_again(context, manifest, runner))
    done = [settled] if settled else []
    state = context.registry.active(unit) or desired_state(context, unit)
    if state is None:
        return done
    if state.version is None:
        return [*done, *_put_pointer(context, state, None)]
    manifest = context.registry.sealed(unit, state.version)
    with hold_staging(context, unit, wait=wait):
        done += _restage(context, manifest, runner)
        done += _restage_predecessor(context, state, runner)
    done += _put_pointer(context, state, manifest)
    if manifest.has_model and (pointer := context.online.pointers.get(unit)):
        done += [f"{NOT_YET}{problem}" for problem in offer_labels(context, unit, pointer)]
    return done


def restore(context: ReleaseContext, unit: str, runner: Runner) -> list[str]:
    """Do :func:`reconcile`, then verify like a release; returns what was done and checked.

    A retired unit stays offline.

    Raises:
        ReleaseError: the unit was never released; else as :func:`reconcile`.
        VerificationError: an answer differs from the trainer's.
    """
    done = reconcile(context, unit, runner)
    state = desired_state(context, unit)
    if retired := retirement_behind(context, state):
        back = f"'ferry rollback {unit} --reason …' makes {retired.version} live again"
        return [*done, f"{unit} stays offline: it was {retired.text}; {back}"]
    if state is None or state.version is None:
        raise ReleaseError(
            f"{unit} has no desired state in {context.registry.objects.address}: nothing of it "
            "was ever live"
        )
    manifest = context.registry.sealed(unit, state.version)
    with hold_staging(context, unit):
        if stage_missing_tables(context, manifest, runner):
            done.append(f"staged again: {unit} {state.version}, its tables differed")
    checks = verify_version(context, manifest)
    checks += [f"from the pointer on: {check}" for check in canary_reads(context, manifest)]
    return [*done, *[f"{unit} {state.version}: {check} agree" for check in checks]]


def was_ever_live(context: ReleaseContext, unit: str) -> bool:
    """Tell whether there is anything of a unit that :func:`restore` could bring back.

    Or take back: a Redis with older data may name what has been retired since.
    """
    state = desired_state(context, unit)
    if state is None:
        return False
    is_wanted = state.version is not None or state.state == "switching"
    return is_wanted or context.online.pointers.get(unit) is not None


def _restage(context: ReleaseContext, manifest: Manifest, runner: Runner) -> list[str]:
    lost = [
        *missing_online(context, manifest, every_replica=True),
        *missing_on_disk(context, manifest),
    ]
    if lost:
        stage_again(context, manifest, runner)
    return [f"staged again: {line}" for line in lost]


def _restage_predecessor(context: ReleaseContext, state: DesiredState, runner: Runner) -> list[str]:
    """Bring back what a rollback would go to; without it the live version is no less live."""
    if state.previous is None:
        return []
    manifest = context.registry.manifest(state.unit, state.previous)
    if manifest is None:
        return []
    try:
        return _restage(context, manifest, runner)
    except FerryError as error:
        log.error("%s %s, the predecessor, is not staged: %s", state.unit, state.previous, error)
        return [f"{NOT_STAGED}{error}"]


def _put_pointer(
    context: ReleaseContext, state: DesiredState, manifest: Manifest | None
) -> list[str]:
    unit, pointers = state.unit, context.online.pointers
    if pointers.epoch(unit) == state.epoch:
        return []
    if manifest:
        verify_version(context, manifest)
    elif pointers.get(unit) is None:
        return []
    with hold(context, unit) as lease:
        if desired_state(context, unit) != state:
            raise ReleaseError(f"{unit} was changed while it was restored: try again")
        pointers.move(
            unit,
            lease,
            seen_epoch=pointers.epoch(unit),
            epoch=state.epoch,
            target=state.pointer(),
            allow_backward=True,
        )
    return [f"{unit}: the pointer names {state.version or 'nothing'} again"]
