"""The registry: versions, manifests and the desired state, all in object storage.

``models/<unit>/<version>/…`` is immutable and sealed by its ``manifest.json``;
``releases/<unit>/active.json`` is the desired state, ``releases/<unit>/history/…`` every switch;
``runs/<date>/<attempt>.json`` reserves the versions; ``reports/`` has the pages of the runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.errors import ReleaseError
from pipelines.online.leases import Leases
from pipelines.release.desired import DesiredState
from pipelines.release.manifest import FileEntry, Golden, Manifest, StagedTables
from pipelines.release.objects import HTML, ObjectStore
from pipelines.run import MAX_ATTEMPT, make_version

_ALLOCATION_WAIT_SECONDS = 10.0

MANIFEST = "manifest.json"

M = TypeVar("M", bound=BaseModel)


class UnknownVersionError(ReleaseError):
    """A version that does not exist, or was never sealed. Trying again can't help."""

    retryable = False


class Reservation(BaseModel):
    """Which run a version belongs to (``runs/<date>/<attempt>.json``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    at: datetime


class ReportOf(BaseModel):
    """Which version's report is a run's (``reports/runs/<run id>.json``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int


class Registry:
    """The versions of all units in one bucket."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects

    def reserve_version(self, leases: Leases, run_date: date, run_id: str) -> int:
        """Reserve a version for a run; the same run asking again gets the same version.

        Raises:
            ReleaseError: another run is reserving right now, or the date has no attempt left.
        """
        folder = f"runs/{run_date.isoformat()}/"
        label = f"the allocation of versions for {run_date}"
        with leases.hold(
            f"versions:{run_date}", run_id, label=label, wait=_ALLOCATION_WAIT_SECONDS
        ) as lease:
            attempts = {
                int(Path(key).stem): self._required(key, Reservation).run_id
                for key in self.objects.list_keys(folder)
            }
            mine = [attempt for attempt, owner in attempts.items() if owner == run_id]
            attempt = mine[0] if mine else max(attempts, default=0) + 1
            if attempt > MAX_ATTEMPT:
                raise ReleaseError(f"run date {run_date} has used all {MAX_ATTEMPT} attempts")
            if not mine:
                lease.require()
                reservation = Reservation(run_id=run_id, at=datetime.now(UTC))
                self.objects.put_text(
                    f"{folder}{attempt:04d}.json", reservation.model_dump_json(indent=2)
                )
        return make_version(run_date, attempt)

    def _read(self, key: str, kind: type[M]) -> M | None:
        text = self.objects.get_text(key)
        if text is None:
            return None
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            raise ReleaseError(
                f"{self.objects.address}, {key}: the document is corrupt, or of another version "
                f"of Ferry: {error.errors()[0]['msg']}"
            ) from error

    def _required(self, key: str, kind: type[M]) -> M:
        found = self._read(key, kind)
        if found is None:
            raise ReleaseError(f"{self.objects.address}: {key} vanished while it was read")
        return found

    # --- versions ---

    def key(self, unit: str, version: int, name: str) -> str:
        """Return the key of one file of a version."""
        return f"models/{unit}/{version}/{name}"

    def seal(self, manifest: Manifest) -> None:
        """Write the manifest: from now on the version exists, and never changes."""
        self.objects.put_text(
            self.key(manifest.unit, manifest.version, MANIFEST),
            manifest.model_dump_json(indent=2),
        )

    def manifest(self, unit: str, version: int) -> Manifest | None:
        """Return the manifest, or None if the version does not exist (or is not sealed)."""
        return self._read(self.key(unit, version, MANIFEST), Manifest)

    def sealed(self, unit: str, version: int) -> Manifest:
        """Return the manifest of a version that must exist.

        Raises:
            UnknownVersionError: it does not.
        """
        manifest = self.manifest(unit, version)
        if manifest is None:
            raise UnknownVersionError(
                f"{unit} has no sealed version {version} in {self.objects.address}: "
                f"'ferry release list {unit}' shows those it has"
            )
        return manifest

    def versions(self, unit: str) -> list[int]:
        """Return the versions that object storage knows, sealed or not, newest first."""
        folders = self.objects.list_folders(f"models/{unit}/")
        return sorted((int(name) for name in folders if name.isdigit()), reverse=True)

    def retired_versions(self, unit: str) -> list[int]:
        """Return the versions of which only the manifest is left, newest first."""
        keys = self.objects.list_keys(f"releases/{unit}/retired/")
        return sorted((int(Path(key).stem) for key in keys), reverse=True)

    def record(self, unit: str, version: int) -> Manifest | None:
        """Return the manifest of a version, also of one that was removed, or None."""
        manifest = self.manifest(unit, version)
        return manifest or self._read(f"releases/{unit}/retired/{version}.json", Manifest)

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

    def record_staging(self, staged: StagedTables) -> None:
        """Keep what staging a version wrote and how its publish gates judged it."""
        key = f"releases/{staged.unit}/staged/{staged.version}.json"
        self.objects.put_text(key, staged.model_dump_json(indent=2))

    def staging(self, unit: str, version: int) -> StagedTables | None:
        """Return what the last staging of a version wrote, or None if it never was."""
        return self._read(f"releases/{unit}/staged/{version}.json", StagedTables)

    def retire(self, manifest: Manifest) -> None:
        """Remove a version; its manifest is kept beside the unit's history.

        The manifest goes first: a crash leaves unsealed files, not a version with holes.
        """
        unit, version = manifest.unit, manifest.version
        self.objects.put_text(
            f"releases/{unit}/retired/{version}.json", manifest.model_dump_json(indent=2)
        )
        self.objects.delete(self.key(unit, version, MANIFEST))
        self.remove_strays(unit, version, ())

    def remove_strays(self, unit: str, version: int, wanted: Collection[str]) -> None:
        """Remove the files of a version that is not sealed, but for those named in `wanted`.

        Raises:
            ReleaseError: it is sealed.
        """
        if self.manifest(unit, version):
            raise ReleaseError(f"{unit} {version} is sealed: its files are not removed")
        folder = self.key(unit, version, "")
        for key in list(self.objects.list_keys(folder)):
            if key.removeprefix(folder) not in wanted:
                self.objects.delete(key)

    # --- the desired state ---

    def active(self, unit: str) -> DesiredState | None:
        """Return the desired state of a unit, or None if it was never released."""
        return self._read(f"releases/{unit}/active.json", DesiredState)

    def set_active(self, state: DesiredState) -> None:
        """Replace the desired state."""
        key = f"releases/{state.unit}/active.json"
        self.objects.put_text(key, state.model_dump_json(indent=2))

    def clear_active(self, unit: str) -> None:
        """Forget the desired state: the unit's first version ever did not go live."""
        self.objects.delete(f"releases/{unit}/active.json")

    def commit(self, state: DesiredState) -> DesiredState:
        """Record a completed move: in the history first, then as the desired state.

        Returns the state that is desired now.

        Raises:
            ReleaseError: the history has another move by that number.
        """
        settled = state.settled()
        key = f"releases/{state.unit}/history/{state.epoch:010d}.json"
        recorded = self._read(key, DesiredState)
        if recorded and recorded.version != state.version:
            raise ReleaseError(
                f"{state.unit}: move {state.epoch} was to {recorded.version or 'nothing'}, not to "
                f"{state.version or 'nothing'}: another run moved the unit meanwhile"
            )
        self.objects.put_text(key, settled.model_dump_json(indent=2))
        self.set_active(settled)
        return settled

    def newest_epoch(self, unit: str) -> int:
        """Return the number of the newest completed move; 0 if there was none."""
        keys = list(self.objects.list_keys(f"releases/{unit}/history/"))
        return int(Path(keys[-1]).stem) if keys else 0

    def newest_move(self, unit: str) -> DesiredState | None:
        """Return the newest completed move of a unit, or None."""
        epoch = self.newest_epoch(unit)
        key = f"releases/{unit}/history/{epoch:010d}.json"
        return self._required(key, DesiredState) if epoch else None

    def history(self, unit: str) -> list[DesiredState]:
        """Return every completed move of a unit, oldest first."""
        return list(self.newest_moves(unit))[::-1]

    def newest_moves(self, unit: str) -> Iterator[DesiredState]:
        """Yield the completed moves of a unit, newest first, each read when it is asked for."""
        for key in reversed(list(self.objects.list_keys(f"releases/{unit}/history/"))):
            yield self._required(key, DesiredState)

    # --- the reports of runs ---

    def put_report(self, version: int, run_id: str, html: str, content: str = "{}") -> str:
        """Keep the page of a run, with its `content` as JSON beside it; returns the page's key.

        A run that is repeated replaces its own.
        """
        key = f"reports/{version}.html"
        self.objects.put_text(f"reports/{version}.json", content)
        self.objects.put_text(key, html, HTML)
        pointer = ReportOf(version=version)
        self.objects.put_text(_report_of(run_id), pointer.model_dump_json())
        return key

    def report(self, version: int) -> str | None:
        """Return the page of the run that built `version`, or None."""
        return self.objects.get_text(f"reports/{version}.html", HTML)

    def report_content(self, version: int) -> str | None:
        """Return what that page shows, as JSON, or None."""
        return self.objects.get_text(f"reports/{version}.json")

    def report_version(self, run_id: str) -> int | None:
        """Return the version whose report is that of a run, or None if it has none."""
        found = self._read(_report_of(run_id), ReportOf)
        return found.version if found else None

    def reports(self) -> list[int]:
        """Return the versions that have a report, newest first."""
        names = (key.removeprefix("reports/") for key in self.objects.list_keys("reports/"))
        pages = (name.removesuffix(".html") for name in names if name.endswith(".html"))
        return sorted((int(page) for page in pages if page.isdigit()), reverse=True)


def _report_of(run_id: str) -> str:
    return f"reports/runs/{quote(run_id, safe='')}.json"
