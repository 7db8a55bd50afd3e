"""Activation: a staged version goes live, if the rules let it, or says why not."""

from __future__ import annotations

import logging
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipelines.errors import ReleaseError
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.origin import are_of_different_lakes
from pipelines.release.rules import activation_refusal
from pipelines.release.staged import missing_tables
from pipelines.release.state import desired_state, live_state, live_version, retirement_behind
from pipelines.release.switch import hold, make_switch, next_state, settle
from pipelines.release.verify import verify_version
from pipelines.run import ActivateMode

log = logging.getLogger(__name__)


class Activation(BaseModel):
    """How an activation ended, and why."""

    model_config = ConfigDict(frozen=True)

    outcome: Literal["live", "refused"]
    reason: str
    #: Of what went live: version, run_date (ISO), and metrics by name.
    facts: dict[str, Any] = {}


def refusal(context: ReleaseContext, manifest: Manifest, mode: ActivateMode) -> str | None:
    """Return why the version may not go live now, or None if it may."""
    desired = desired_state(context, manifest.unit)
    rejection = context.registry.rejection(manifest.unit, manifest.version)
    return activation_refusal(
        manifest.version,
        live_version(context, manifest.unit),
        mode=mode,
        withdrawn=desired.withdrawn if desired else {},
        gates=manifest.refusal,
        rejected=rejection.how if rejection else None,
        retired=_retired(context, manifest),
    )


def _retired(context: ReleaseContext, manifest: Manifest) -> int | None:
    """Return which version was live until the unit was retired, if it bars older ones.

    One of another lake does not: the days of two data sets say nothing about each other.
    """
    retirement = retirement_behind(context, live_state(context, manifest.unit))
    if retirement is None:
        return None
    former = context.registry.manifest(manifest.unit, retirement.version)
    if former and are_of_different_lakes(former, manifest):
        return None
    return retirement.version


def activate(
    context: ReleaseContext, manifest: Manifest, mode: ActivateMode = "if_newest"
) -> Activation:
    """Make a staged version live, verify it through the pointer, or put everything back.

    Raises:
        VerificationError: the version answered wrongly before or after the switch; what was
            live before is live.
        ReleaseError: something else changes the unit at the same moment, or removed the version.
    """
    unit, version = manifest.unit, manifest.version
    if done := settle(context, unit):
        log.info(done)
    if ended := _ended(context, manifest, mode):
        return ended
    for check in verify_version(context, manifest):
        log.info("before the switch: %s agree", check)
    with hold(context, unit) as lease:
        # Decided again: what is live, and what is there, may have changed while the answers were
        # compared.
        if ended := _ended(context, manifest, mode):
            return ended
        context.registry.sealed(unit, version)
        if missing := missing_tables(context, manifest):
            raise ReleaseError(f"{missing[0]}: stage the version again first")
        desired = desired_state(context, unit)
        wanted = next_state(
            context,
            unit,
            version,
            "release",
            f"release of run date {manifest.run_date}",
            backward=mode == "always",
            withdrawn=desired.withdrawn if desired else {},
        )
        make_switch(context, lease, wanted, manifest)
    return _live(manifest, f"version {version} is live")


def _live(manifest: Manifest, reason: str) -> Activation:
    return Activation(outcome="live", reason=reason, facts=manifest.facts)


def _ended(context: ReleaseContext, manifest: Manifest, mode: ActivateMode) -> Activation | None:
    if reason := refusal(context, manifest, mode):
        return Activation(outcome="refused", reason=reason)
    pointer = context.online.pointers.get(manifest.unit)
    if pointer and pointer.version == manifest.version:
        return _live(manifest, f"version {manifest.version} is already live")
    return None
