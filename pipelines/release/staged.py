"""What of a version is online: its tables in Redis, its model on the replicas."""

from __future__ import annotations

import logging

from pipelines.config import Replica
from pipelines.errors import ServiceError, VerificationError
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest, StagedTables
from pipelines.release.runners import Runner
from pipelines.release.stage_model import serves
from pipelines.release.stage_tables import stage_tables, verify_checksums
from pipelines.release.verify import first_to_answer

log = logging.getLogger(__name__)


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


def stage_missing_tables(
    context: ReleaseContext, manifest: Manifest, runner: Runner
) -> StagedTables | None:
    """Write a version's tables unless all of them are in Redis as they were built.

    Returns None if there was nothing to write. What is there in part, or differs, may be of a
    version that is live: it is replaced bucket by bucket, so that no reader sees a gap.

    Raises:
        ReleaseError: as :func:`pipelines.release.stage_tables.stage_tables`.
    """
    is_described = bool(context.online.table_meta(manifest.unit, manifest.version))
    if is_described and not missing_tables(context, manifest):
        try:
            verify_checksums(context, manifest)
            return None
        except VerificationError as error:
            log.warning("staged again: %s", error)
    return stage_tables(context, manifest, runner, replace=is_described)


def missing_online(
    context: ReleaseContext, manifest: Manifest, *, every_replica: bool
) -> list[str]:
    """Return, in one line each, what of the version is not online.

    Its model counts as online where every replica serves it or, without `every_replica`, one does.
    """
    missing = missing_tables(context, manifest)
    if manifest.has_model:
        ask = _on_every_replica if every_replica else _on_no_replica
        missing += ask(context, manifest)
    return missing


def _on_every_replica(context: ReleaseContext, manifest: Manifest) -> list[str]:
    """Return what each replica says that does not serve the version."""
    states = [serves(r, manifest.unit, manifest.version) for r in context.settings.tf_serving]
    return [state for state in states if state]


def _on_no_replica(context: ReleaseContext, manifest: Manifest) -> list[str]:
    """Return what the replicas say, if not one of them serves the version."""

    def ask(replica: Replica) -> str:
        if state := serves(replica, manifest.unit, manifest.version):
            raise ServiceError(state)
        return replica.grpc

    try:
        first_to_answer(context.settings.tf_serving, ask)
    except ServiceError as error:
        return [str(error)]
    return []
