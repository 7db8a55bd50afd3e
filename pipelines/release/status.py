"""What is live of each unit, since when, where, how large, how old, and how it was judged."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipelines.evaluation.gates import GateResult
from pipelines.models.base import Metric
from pipelines.online.pointer import Pointer
from pipelines.release.context import ReleaseContext
from pipelines.release.desired import DesiredState, Retirement
from pipelines.release.manifest import Manifest
from pipelines.release.origin import CurrentLake, is_from_another_lake, lake_note
from pipelines.release.stage_model import serves
from pipelines.release.state import retirement_behind, standing_state


class UnitStatus(BaseModel):
    """What is live of a unit; if nothing is, only `unit`, `retired` and `problems` say anything."""

    model_config = ConfigDict(frozen=True)

    unit: str
    live: Pointer | None = None
    #: By whom, when and why the unit was taken offline.
    retired: Retirement | None = None
    who: str | None = None
    why: str | None = None
    #: Whether the data that it was trained on are of another lake than this one; None: unknown.
    from_another_lake: bool | None = None
    #: What a person ought to know about that.
    lake_note: str | None = None
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


def unit_status(context: ReleaseContext, unit: str, lake: CurrentLake, today: date) -> UnitStatus:
    """Return what is live of one unit now, compared with the `lake` and the day of this moment.

    Raises:
        ServiceError: Redis or object storage does not answer; a replica that does not is told of
            in the answer.
    """
    online = context.online
    pointer = online.pointers.get(unit)
    desired = context.registry.active(unit)
    problems = _disagreements(context, unit, pointer, desired)
    if pointer is None:
        retired = retirement_behind(context, standing_state(context, unit))
        return UnitStatus(unit=unit, retired=retired, problems=problems)
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
        from_another_lake=is_from_another_lake(manifest, lake),
        lake_note=lake_note(manifest, lake),
        data_age_days=data_age_days(manifest, today),
        rows={name: meta.rows for name, meta in tables.items()},
        redis_bytes=sum(online.memory_of(unit, pointer.version, meta) for meta in tables.values()),
        replicas=_replicas(context, manifest),
        gates=[*manifest.gates, *_publish_gates(context, manifest)],
        metrics=manifest.metrics,
        problems=problems,
    )


def data_age_days(manifest: Manifest, today: date) -> int:
    """Return how many days the run date of a version is before `today`, a day of the data."""
    return (today - manifest.run_date).days


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
    #: live, previous, sealed, refused, rolled back, retired, or unsealed.
    state: str
    run_date: date | None = None
    run_type: str | None = None
    created_at: datetime | None = None
    metrics: dict[str, Metric] = {}
    reason: str | None = None


def version_lines(context: ReleaseContext, unit: str) -> list[VersionLine]:
    """Return the unit's versions in object storage, newest first."""
    versions = context.registry.versions(unit)
    pointer, withdrawals = _what_is_live(context, unit, versions)
    return [
        _line(version, context.registry.manifest(unit, version), pointer, withdrawals)
        for version in versions
    ]


#: The state of a version that was taken back, and the reason.
_Withdrawal = tuple[str, str]


def _what_is_live(
    context: ReleaseContext, unit: str, versions: Collection[int]
) -> tuple[Pointer | None, dict[int, _Withdrawal]]:
    """Return the pointer, and which of these versions a rollback or a retirement took back."""
    pointer, desired = context.online.pointers.get(unit), context.registry.active(unit)
    if desired is None:
        return pointer, {}
    reasons = {v: why for v, why in desired.withdrawn.items() if v in versions}
    found = {version: ("rolled back", why) for version, why in reasons.items()}
    # The newest move that took a version back is the one that counts.
    unknown = set(reasons)
    for move in itertools.chain([desired], context.registry.newest_moves(unit)):
        if not unknown:
            break
        if move.replaced in unknown and move.kind in ("rollback", "retirement"):
            unknown.remove(move.replaced)
            if retirement := move.retirement:
                found[retirement.version] = ("retired", retirement.text)
    return pointer, found


def _line(
    version: int,
    manifest: Manifest | None,
    pointer: Pointer | None,
    withdrawals: dict[int, _Withdrawal],
) -> VersionLine:
    if manifest is None:
        return VersionLine(version=version, state="unsealed", reason="its build did not end")
    sealed = ("refused", manifest.refusal) if manifest.refusal else ("sealed", None)
    state, reason = withdrawals.get(version, sealed)
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
    line = _line(version, manifest, *_what_is_live(context, unit, [version]))
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
