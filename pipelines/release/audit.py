"""The audit of what is live: everything that a release verifies, and every artifact's checksum."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipelines.errors import ReleaseError, VerificationError
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.stage_model import missing_on_disk
from pipelines.release.stage_tables import verify_checksums
from pipelines.release.staged import missing_online
from pipelines.release.state import retirement_behind, standing_state
from pipelines.release.verify import canary_reads, verify_version


def audit(context: ReleaseContext, unit: str) -> list[str]:
    """Check the live version of a unit wherever it is; returns what was checked.

    Raises:
        ReleaseError: nothing is live, or an artifact is not what the manifest sealed.
        VerificationError: something is missing online, or answers differ; all of it is named.
        ServiceError: a service does not answer.
    """
    pointer = context.online.pointers.get(unit)
    if pointer is None:
        retired = retirement_behind(context, standing_state(context, unit))
        why = f"it was {retired.text}" if retired else "there is nothing to verify"
        raise ReleaseError(f"nothing of {unit} is live: {why}")
    manifest = context.registry.sealed(unit, pointer.version)
    desired = context.registry.active(unit)
    if desired is None or desired.version != pointer.version or desired.state != "live":
        wanted = f"{desired.version or 'nothing'} ({desired.state})" if desired else "nothing"
        raise VerificationError(
            f"{unit}: Redis names {pointer.version}, object storage {wanted}: "
            f"'ferry reconcile {unit}' settles it"
        )
    missing = missing_online(context, manifest, every_replica=True)
    if missing := [*missing, *missing_on_disk(context, manifest)]:
        raise VerificationError("; ".join(missing))
    checks = [_verify_artifacts(context, manifest), *verify_checksums(context, manifest)]
    checks += verify_version(context, manifest)
    checks += [f"from the pointer on: {check}" for check in canary_reads(context, manifest)]
    return [f"{unit} {pointer.version}: {check} agree" for check in checks]


def _verify_artifacts(context: ReleaseContext, manifest: Manifest) -> str:
    with tempfile.TemporaryDirectory(prefix="ferry-audit-") as folder:
        for entry in manifest.files:
            path = Path(folder) / "artifact"
            context.registry.download(manifest, entry, path)
            path.unlink()
    return f"the checksums of {len(manifest.files)} artifacts"
