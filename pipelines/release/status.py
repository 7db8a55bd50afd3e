"""What is live of each unit, since when, where, how large, how old, and how it was judged."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipelines.evaluation.gates import GateResult
from pipelines.models.base import Metric
from pipelines.online.pointer import Pointer
from pipelines.release.context import ReleaseContext
from pipelines.release.desired import DesiredState
from pipelines.release.manifest import Manifest
from pipelines.release.stage_model import serves
from pipelines.release.state import standing_state


class UnitStatus(BaseModel):
    """What is live of a unit; everything but `unit` is empty if nothing is."""

    model_config = ConfigDict(frozen=True)

    unit: str
    live: Pointer | None = None
    who: str | None = None
    why: str | None = None
    data_date: date | None = None
    data_age_days: int | None = None
    rows: dict[str, int] = {}
    redis_bytes: int = 0
    #: Address of each replica, and "AVAILABLE" or what it says instead.
    replicas: dict[str, str] = {}
    gates: list[GateResult] = []
    metrics: dict[str, Metric] = {}
    #: Where Redis does not agree with object storage, in one line each.
    problems: list[str] = []


def unit_status(context: ReleaseContext, unit: str) -> UnitStatus:
    """Return what is live of one unit now.

    Raises:
        ServiceError: Redis or object storage does not answer; a replica that does not is told of
            in the answer.
    """
    online = context.online
    pointer = online.pointers.get(unit)
    desired = context.registry.active(unit)
    problems = _disagreements(context, unit, pointer, desired)
    if pointer is None:
        return UnitStatus(unit=unit, problems=problems)
    manifest = context.registry.manifest(unit, pointer.version)
    if manifest is None:
        problems.append(f"{pointer.version} is live but has no manifest in object storage")
        return UnitStatus(unit=unit, live=pointer, problems=problems)
    tables = online.table_meta(unit, pointer.version)
    problems += [
        f"table {meta.name} is not in Redis at {online.address}: 'ferry restore {unit}'"
        for meta in manifest.tables
        if meta.name not in tables
    ]
    # While a switch is on its way, the pointer may still be where the move before it left it.
    standing = standing_state(context, unit)
    moved_by = standing if standing and standing.epoch == pointer.epoch else None
    return UnitStatus(
        unit=unit,
        live=pointer,
        who=moved_by.who if moved_by else None,
        why=moved_by.why if moved_by else None,
        data_date=manifest.run_date,
        data_age_days=data_age_days(manifest),
        rows={name: meta.rows for name, meta in tables.items()},
        redis_bytes=sum(online.memory_of(unit, pointer.version, meta) for meta in tables.values()),
        replicas=_replicas(context, manifest),
        gates=[*manifest.gates, *_publish_gates(context, manifest)],
        metrics=manifest.metrics,
        problems=problems,
    )


def data_age_days(manifest: Manifest) -> int:
    """Return how many days the run date of a version is before today (UTC)."""
    return (datetime.now(UTC).date() - manifest.run_date).days


def _disagreements(
    context: ReleaseContext, unit: str, pointer: Pointer | None, desired: DesiredState | None
) -> list[str]:
    live = pointer.version if pointer else None
    settles = f"'ferry reconcile {unit}' settles it"
    if desired is None:
        return [f"{live} is live, object storage knows of no release: {settles}"] if live else []
    wanted = desired.version or "nothing"
    if desired.state == "switching":
        holder = context.online.leases.holder(context.online.pointers.key(unit))
        if holder:
            return [f"a switch to {wanted} is under way, by {holder}"]
        return [f"a switch to {wanted} was left half-way: {settles}"]
    if desired.version != live:
        return [f"object storage wants {wanted}, Redis has {live or 'nothing'}: {settles}"]
    if pointer and pointer.epoch != desired.epoch:
        return [f"object storage is at move {desired.epoch}, Redis at {pointer.epoch}: {settles}"]
    return []


def _publish_gates(context: ReleaseContext, manifest: Manifest) -> list[GateResult]:
    staged = context.registry.staging(manifest.unit, manifest.version)
    return staged.gates if staged else []


def _replicas(context: ReleaseContext, manifest: Manifest) -> dict[str, str]:
    if not manifest.has_model:
        return {}
    return {
        replica.grpc: serves(replica, manifest.unit, manifest.version) or "AVAILABLE"
        for replica in context.settings.tf_serving
    }


class VersionLine(BaseModel):
    """One version in the list of a unit's versions."""

    model_config = ConfigDict(frozen=True)

    version: int
    #: live, previous, sealed, refused, rolled back, or unsealed.
    state: str
    run_date: date | None = None
    run_type: str | None = None
    created_at: datetime | None = None
    metrics: dict[str, Metric] = {}
    reason: str | None = None


def version_lines(context: ReleaseContext, unit: str) -> list[VersionLine]:
    """Return the unit's versions in object storage, newest first."""
    pointer, withdrawn = _what_is_live(context, unit)
    return [
        _line(version, context.registry.manifest(unit, version), pointer, withdrawn)
        for version in context.registry.versions(unit)
    ]


def _what_is_live(context: ReleaseContext, unit: str) -> tuple[Pointer | None, dict[int, str]]:
    """Return the pointer, and the versions that a rollback took back."""
    desired = context.registry.active(unit)
    return context.online.pointers.get(unit), desired.withdrawn if desired else {}


def _line(
    version: int, manifest: Manifest | None, pointer: Pointer | None, withdrawn: dict[int, str]
) -> VersionLine:
    if manifest is None:
        return VersionLine(version=version, state="unsealed", reason="its build did not end")
    reason = withdrawn.get(version) or manifest.refusal
    state = "rolled back" if version in withdrawn else "refused" if reason else "sealed"
    if pointer and version in (pointer.version, pointer.previous):
        state = "live" if version == pointer.version else "previous"
    return VersionLine(
        version=version,
        state=state,
        run_date=manifest.run_date,
        run_type=manifest.run_type,
        created_at=manifest.created_at,
        metrics=manifest.metrics,
        reason=reason,
    )


def version_details(context: ReleaseContext, manifest: Manifest) -> dict[str, Any]:
    """Return a version's whole manifest, its state, and the moves that concern it."""
    unit, version = manifest.unit, manifest.version
    line = _line(version, manifest, *_what_is_live(context, unit))
    moves = [
        state.model_dump(mode="json", include={"epoch", "version", "kind", "at", "who", "why"})
        for state in context.registry.history(unit)
        if version in (state.version, state.replaced)
    ]
    staged = context.registry.staging(unit, version)
    return {
        "state": line.state,
        "reason": line.reason,
        **manifest.model_dump(mode="json"),
        "staged": staged.model_dump(mode="json") if staged else None,
        "moves": moves,
    }
