"""Retention: versions that nothing needs any more go, first online, then for good.

Kept are the live version, what a rollback goes to, the newest N, and whatever is newer than the
live version (:func:`pipelines.release.rules.retained`); of a retired unit what was live until then
counts as live. Redis first, by enumeration of the
buckets, then the model servers, then their disk, then object storage: as long as a version's
manifest stands, what is left of it elsewhere can be found. The manifest of a version that goes is
kept under ``releases/<unit>/retired/``, so that its metrics outlive it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict

from pipelines.config import RetentionConfig
from pipelines.errors import ReleaseError
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.rules import retained
from pipelines.release.serving_config import configured_versions, read_config, versions_on_disk
from pipelines.release.stage_model import unload
from pipelines.release.state import live_state, live_version, protected_versions, retirement_behind
from pipelines.release.switch import hold, hold_staging

log = logging.getLogger(__name__)


class Removal(BaseModel):
    """What retention removes, or would remove, of one unit: versions by place."""

    model_config = ConfigDict(frozen=True)

    unit: str
    live: int | None
    kept: list[int]
    redis: list[int] = []
    loaded: list[int] = []
    disk: list[int] = []
    object_storage: list[int] = []
    #: Never sealed, older than what is live, and not being built.
    leftovers: list[int] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.redis or self.loaded or self.disk or self.object_storage or self.leftovers)


def build_lease(unit: str, version: int) -> str:
    """Return what the lease is called under which a version is built."""
    return f"build:{unit}:{version}"


def retain(
    context: ReleaseContext, unit: str, config: RetentionConfig, *, dry_run: bool
) -> Removal:
    """Remove what `config` does not keep of a unit, or only say so; returns it.

    A crash leaves less to do for the next time.

    Raises:
        ReleaseError: another process is staging or restoring the unit.
    """
    if dry_run:
        return _plan(context, unit, config)[0]
    with hold_staging(context, unit) as lease:
        removal, manifests = _plan(context, unit, config)
        for version in removal.redis:
            # Under the lease of the pointer: what goes live meanwhile is not taken away.
            with hold(context, unit) as moving:
                lease.require()
                moving.require()
                if version not in protected_versions(context, unit):
                    context.online.unlink_tables(unit, version, manifests[version].tables)
                    log.info("%s %s: removed from Redis", unit, version)
        if removal.loaded:
            unload(context, unit, removal.loaded)
        for version in removal.disk:
            if version not in protected_versions(context, unit):
                _remove_from_disk(context, unit, version)
        for version in removal.object_storage:
            with hold(context, unit):
                lease.require()
                if version not in protected_versions(context, unit):
                    context.registry.retire(manifests[version])
                    log.info("%s %s: removed from object storage", unit, version)
        for version in removal.leftovers:
            _remove_leftover(context, unit, version)
    return removal


def _remove_leftover(context: ReleaseContext, unit: str, version: int) -> None:
    """Remove what was never sealed, with its build held off; one that is being built stays."""
    try:
        with context.online.leases.hold(build_lease(unit, version), context.owner):
            context.registry.remove_strays(unit, version, ())
            log.info("%s %s: removed, it was never sealed", unit, version)
    except ReleaseError as error:
        log.info("%s %s stays: %s", unit, version, error)


def _plan(
    context: ReleaseContext, unit: str, config: RetentionConfig
) -> tuple[Removal, dict[int, Manifest]]:
    registry, online = context.registry, context.online
    found = {version: registry.manifest(unit, version) for version in registry.versions(unit)}
    manifests = {version: manifest for version, manifest in found.items() if manifest}
    needed, live = protected_versions(context, unit), live_version(context, unit)
    retired = retirement_behind(context, live_state(context, unit)) if live is None else None
    bound = retired.version if retired else live
    kept = retained(list(manifests), needed, bound, online=config.online, stored=config.stored)
    gone = sorted(manifests.keys() - kept.online)
    return Removal(
        unit=unit,
        live=live,
        kept=sorted(kept.stored, reverse=True),
        redis=[v for v in gone if manifests[v].tables and _in_redis(context, manifests[v])],
        loaded=sorted(_removable(_loaded(context, unit), kept.online, bound)),
        disk=sorted(
            _removable(versions_on_disk(context.settings.model_dir, unit), kept.online, bound)
        ),
        object_storage=sorted(manifests.keys() - kept.stored),
        leftovers=[
            version
            for version, manifest in sorted(found.items())
            if manifest is None
            and bound is not None
            and version < bound
            and not online.leases.holder(build_lease(unit, version))
        ],
    ), manifests


def _removable(
    versions: Collection[int], kept: Collection[int], bound: int | None
) -> frozenset[int]:
    """Return those that are not kept; what is not older than `bound` is never touched."""
    return frozenset(v for v in versions if v not in kept and bound is not None and v < bound)


def _loaded(context: ReleaseContext, unit: str) -> frozenset[int]:
    return configured_versions(read_config(context.settings.model_dir), unit)


def _in_redis(context: ReleaseContext, manifest: Manifest) -> bool:
    online, unit, version = context.online, manifest.unit, manifest.version
    # What a killed attempt left has rows, but no description yet.
    return bool(online.table_meta(unit, version)) or any(
        online.count_rows(unit, version, meta) for meta in manifest.tables
    )


def _remove_from_disk(context: ReleaseContext, unit: str, version: int) -> None:
    folder = context.settings.model_dir / unit / str(version)
    # Renamed first: a server must not meet half of a version.
    doomed = folder.with_name(f"{version}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)
    log.info("%s %s: removed from the model servers' disk", unit, version)
