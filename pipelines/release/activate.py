"""The switch: desired state, pointer, labels; then a look through the pointer, or all goes back."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipelines.errors import FerryError, ReleaseError, VerificationError
from pipelines.online.store import Pointer
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import ActiveVersion, Manifest
from pipelines.release.stage import label_stable
from pipelines.release.verify import SAVED_MODEL, verify_version

log = logging.getLogger(__name__)

Outcome = Literal["live", "refused"]


class Activation(BaseModel):
    """How an activation ended, and why."""

    model_config = ConfigDict(frozen=True)

    outcome: Outcome
    reason: str


def refusal(version: int, live: Pointer | None) -> str | None:
    """Return why `version` may not go live now, or None if it may: only forward."""
    if live is not None and version < live.version:
        return f"version {version} is older than {live.version}, which is live"
    return None


def activate(context: ReleaseContext, manifest: Manifest) -> Activation:
    """Make a staged version live, verify it through the pointer, or put everything back.

    Raises:
        VerificationError: the version answered wrongly before or after the switch; what was
            live before is live.
        ReleaseError: something else moved the pointer at the same moment.
    """
    unit, version = manifest.unit, manifest.version
    former = context.online.pointer(unit)
    if reason := refusal(version, former):
        return Activation(outcome="refused", reason=reason)
    for check in verify_version(context, manifest):
        log.info("before the switch: %s agree", check)
    if former and former.version == version:
        return Activation(outcome="live", reason=f"version {version} is already live")

    desired = context.registry.active(unit)
    context.registry.set_active(
        ActiveVersion(
            unit=unit,
            version=version,
            previous=former.version if former else None,
            at=datetime.now(UTC),
            who=context.owner,
            why=f"release of run date {manifest.run_date}",
        )
    )
    try:
        if not context.online.switch(unit, version, expected=former):
            raise ReleaseError(f"{unit}: another run moved the pointer while {version} went live")
        _follow_labels(context, manifest)
        _verify_through_pointer(context, manifest)
    except FerryError as error:
        _go_back(context, manifest, former, desired, str(error))
        raise
    return Activation(outcome="live", reason=f"version {version} is live")


def _follow_labels(context: ReleaseContext, manifest: Manifest) -> None:
    pointer = context.online.pointer(manifest.unit)
    if pointer and manifest.files_below(SAVED_MODEL):
        label_stable(context, manifest.unit, pointer)


def _verify_through_pointer(context: ReleaseContext, manifest: Manifest) -> None:
    pointer = context.online.pointer(manifest.unit)
    if pointer is None or pointer.version != manifest.version:
        raise VerificationError(
            f"{manifest.unit}: the pointer names {pointer.version if pointer else 'nothing'} "
            f"after the switch to {manifest.version}"
        )
    for check in verify_version(context, manifest):
        log.info("after the switch: %s agree", check)


def _go_back(
    context: ReleaseContext,
    manifest: Manifest,
    former: Pointer | None,
    desired: ActiveVersion | None,
    why: str,
) -> None:
    """Restore pointer, desired state and labels to what they were before the switch."""
    unit, version = manifest.unit, manifest.version
    log.error("%s %s goes back: %s", unit, version, why)
    context.online.put_back(unit, version, former)
    recorded = context.registry.active(unit)
    # Where another run has recorded its own switch meanwhile, that one stands.
    if recorded and recorded.version == version:
        if desired:
            update = {"at": datetime.now(UTC), "who": context.owner, "why": f"back: {why}"}
            context.registry.set_active(desired.model_copy(update=update))
        else:
            context.registry.clear_active(unit)
    _follow_labels(context, manifest)
