"""The registry: versions, manifests and the desired state, all in object storage.

``models/<unit>/<version>/…`` is immutable and sealed by its ``manifest.json``;
``releases/<unit>/active.json`` is the desired state, ``releases/<unit>/history/…`` every switch;
``runs/<date>/<attempt>.json`` reserves the versions.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

from pipelines.errors import ReleaseError
from pipelines.online.store import OnlineStore
from pipelines.release.manifest import ActiveVersion, FileEntry, Golden, Manifest
from pipelines.release.objects import ObjectStore
from pipelines.run import MAX_ATTEMPT, make_version

_LOCK_SECONDS = 60


class Registry:
    """The versions of all units in one bucket."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects

    def reserve_version(self, online: OnlineStore, run_date: date, run_id: str) -> int:
        """Reserve a version for a run; the same run asking again gets the same version.

        Raises:
            ReleaseError: another run is reserving right now, or the date has no attempt left.
        """
        folder = f"runs/{run_date.isoformat()}/"
        with online.lock("version allocation", run_id, _LOCK_SECONDS):
            attempts: dict[int, str] = {}
            for key in self.objects.list_keys(folder):
                text = self.objects.get_text(key)
                attempts[int(Path(key).stem)] = json.loads(text)["run_id"] if text else ""
            mine = [attempt for attempt, owner in attempts.items() if owner == run_id]
            attempt = mine[0] if mine else max(attempts, default=0) + 1
            if attempt > MAX_ATTEMPT:
                raise ReleaseError(f"run date {run_date} has used all {MAX_ATTEMPT} attempts")
            if not mine:
                self.objects.put_text(
                    f"{folder}{attempt:04d}.json",
                    json.dumps({"run_id": run_id, "at": datetime.now(UTC).isoformat()}),
                )
        return make_version(run_date, attempt)

    # --- versions ---

    def key(self, unit: str, version: int, name: str) -> str:
        """Return the key of one file of a version."""
        return f"models/{unit}/{version}/{name}"

    def seal(self, manifest: Manifest) -> None:
        """Write the manifest: from now on the version exists, and never changes."""
        self.objects.put_text(
            self.key(manifest.unit, manifest.version, "manifest.json"),
            manifest.model_dump_json(indent=2),
        )

    def manifest(self, unit: str, version: int) -> Manifest | None:
        """Return the manifest, or None if the version does not exist (or is not sealed)."""
        text = self.objects.get_text(self.key(unit, version, "manifest.json"))
        return Manifest.model_validate_json(text) if text else None

    def sealed(self, unit: str, version: int) -> Manifest:
        """Return the manifest of a version that must exist.

        Raises:
            ReleaseError: it does not.
        """
        manifest = self.manifest(unit, version)
        if manifest is None:
            raise ReleaseError(f"{unit} has no sealed version {version} in {self.objects.address}")
        return manifest

    def versions(self, unit: str) -> list[int]:
        """Return the versions that object storage knows, sealed or not, newest first."""
        folders = self.objects.list_folders(f"models/{unit}/")
        return sorted((int(name) for name in folders if name.isdigit()), reverse=True)

    def download(self, manifest: Manifest, entry: FileEntry, target: Path) -> None:
        """Download one file of a version and verify its checksum."""
        key = self.key(manifest.unit, manifest.version, entry.name)
        self.objects.download(key, target, entry)

    def golden(self, manifest: Manifest, workdir: Path) -> Golden:
        """Return a version's golden requests, verified against the manifest."""
        entry = next((e for e in manifest.files if e.name == "golden.json"), None)
        if entry is None:
            raise ReleaseError(f"{manifest.unit} {manifest.version} has no golden.json")
        target = workdir / "golden.json"
        self.download(manifest, entry, target)
        return Golden.model_validate_json(target.read_text(encoding="utf-8"))

    # --- the desired state ---

    def active(self, unit: str) -> ActiveVersion | None:
        """Return the desired state of a unit, or None if it was never released."""
        text = self.objects.get_text(f"releases/{unit}/active.json")
        return ActiveVersion.model_validate_json(text) if text else None

    def set_active(self, active: ActiveVersion) -> None:
        """Record a switch in the history, then as the desired state."""
        text = active.model_dump_json(indent=2)
        stamp = active.at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.objects.put_text(f"releases/{active.unit}/history/{stamp}.json", text)
        self.objects.put_text(f"releases/{active.unit}/active.json", text)

    def clear_active(self, unit: str) -> None:
        """Forget the desired state: the unit's first version ever was taken back."""
        self.objects.delete(f"releases/{unit}/active.json")

    def history(self, unit: str) -> list[ActiveVersion]:
        """Return every switch of a unit, oldest first."""
        texts = map(self.objects.get_text, self.objects.list_keys(f"releases/{unit}/history/"))
        return [ActiveVersion.model_validate_json(text) for text in texts if text]
