"""What of a version is online: its tables in Redis, its model on the replicas."""

from __future__ import annotations

from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.stage_model import serves


def missing_tables(context: ReleaseContext, manifest: Manifest) -> list[str]:
    """Return, in one line each, what of the version's tables is not in Redis (by counts)."""
    unit, version, online = manifest.unit, manifest.version, context.online
    staged = online.table_meta(unit, version)
    missing = []
    for meta in manifest.tables:
        where = f"{unit} {version}, table {meta.name}: Redis at {online.address}"
        if staged.get(meta.name) != meta:
            missing.append(f"{where} does not have it")
        elif (rows := online.count_rows(unit, version, meta)) != meta.rows:
            missing.append(f"{where} holds {rows} rows of {meta.rows}")
    return missing


def missing_online(
    context: ReleaseContext, manifest: Manifest, *, every_replica: bool
) -> list[str]:
    """Return, in one line each, what of the version is not online.

    Its model counts as online where every replica serves it or, without `every_replica`, one does.
    """
    missing = missing_tables(context, manifest)
    if manifest.has_model:
        states = [
            serves(replica, manifest.unit, manifest.version)
            for replica in context.settings.tf_serving
        ]
        if every_replica or None not in states:
            missing += [state for state in states if state]
    return missing
