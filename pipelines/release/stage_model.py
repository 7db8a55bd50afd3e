"""Staging a model: onto the model servers' disk and beside what they serve; labels; unloading."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pipelines.config import Replica
from pipelines.errors import FerryError, ReleaseError, ServiceError
from pipelines.online.leases import Lease
from pipelines.online.pointer import Pointer
from pipelines.online.tf_serving import ModelServer
from pipelines.patience import Patience, patient
from pipelines.progress import progress
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import SAVED_MODEL, Manifest
from pipelines.release.objects import sha256_of
from pipelines.release.serving_config import (
    AT_ONCE_SECONDS,
    CANARY,
    STABLE,
    configured_labels,
    configured_versions,
    offer_config,
    offer_nothing,
    read_config,
    send_config,
    versions_on_disk,
    wait_available,
    with_model,
    without_missing,
    write_config,
)
from pipelines.release.state import protected_versions

_CONFIG_LEASE = "model server configuration"
#: A holder that was killed keeps its lease for 30 seconds.
_CONFIG_WAIT_SECONDS = 45.0
#: Labels after a rollback: the pointer has moved, and whoever rolled back is waiting.
_OFFER_WAIT_SECONDS = 5.0

log = logging.getLogger(__name__)


def bring_model(context: ReleaseContext, manifest: Manifest) -> Path:
    """Bring a version's SavedModel to the model servers' disk; returns its folder.

    It is assembled under a name that no model server takes for a version, flushed to disk and
    renamed, so that a server never sees a half-written version.

    Raises:
        ReleaseError: a file is not what the manifest sealed.
    """
    base = context.settings.model_dir / manifest.unit
    target = base / str(manifest.version)
    if not missing_on_disk(context, manifest):
        return target
    for left in base.glob(f"{manifest.version}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    # A name of its own: an attempt that this one has overtaken may still be writing.
    temporary = base / f"{manifest.version}.{uuid.uuid4().hex}.tmp"
    files = manifest.files_below(SAVED_MODEL)
    with progress(f"bring {manifest.unit} to disk", sum(f.size for f in files), "bytes") as advance:
        for entry in files:
            path = temporary / entry.name.removeprefix(f"{SAVED_MODEL}/")
            context.registry.download(manifest, entry, path)
            _flush(path)
            advance(entry.size)
    for folder in [p for p in temporary.rglob("*") if p.is_dir()]:
        _flush(folder)
    _flush(temporary)
    if not _is_whole(temporary, manifest):
        raise ReleaseError(
            f"{temporary} was changed while it was written: another attempt is at it"
        )
    if target.exists():
        if not missing_on_disk(context, manifest):
            shutil.rmtree(temporary)
            return target
        # Damaged on the disk. A server that has loaded it does not read it again.
        shutil.rmtree(target)
    temporary.rename(target)
    _flush(base)
    return target


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole(folder: Path, manifest: Manifest) -> bool:
    """Tell whether `folder` holds exactly the model that the manifest sealed."""
    sealed = {e.name.removeprefix(f"{SAVED_MODEL}/"): e for e in manifest.files_below(SAVED_MODEL)}
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return found == sealed.keys() and all(
        sha256_of(folder / name) == entry.sha256 for name, entry in sealed.items()
    )


def missing_on_disk(context: ReleaseContext, manifest: Manifest) -> list[str]:
    """Return, in one line, that the model servers' disk does not hold the version's model whole.

    What a server has loaded still answers then, but it would not come back with it.
    """
    if not manifest.has_model:
        return []
    folder = context.settings.model_dir / manifest.unit / str(manifest.version)
    if folder.is_dir() and _is_whole(folder, manifest):
        return []
    return [
        f"{manifest.unit} {manifest.version}: the model servers' disk does not hold the model whole"
    ]


def load_model(context: ReleaseContext, manifest: Manifest) -> None:
    """Load a version beside the live one on every replica and label it `canary`.

    What no pointer needs any more is unloaded at the same time.

    Raises:
        ServiceError, ReleaseError: a replica did not take it; the message names it, and all
            replicas have their former configuration.
    """
    unit, version = manifest.unit, manifest.version
    seconds = context.config.load_timeout_seconds
    try:
        _change(context, unit, functools.partial(_beside, context, unit, version), seconds)
        wait_available(context.settings, unit, [version], seconds)
        # A label can point only to what is AVAILABLE: so labels go in a second reload.
        _change(
            context,
            unit,
            lambda loaded, labels: (
                {*loaded, version},
                {**_stable(context, unit, labels), CANARY: version},
            ),
            seconds,
        )
    except FerryError:
        _withdraw(context, unit, version)
        raise


def _beside(
    context: ReleaseContext,
    unit: str,
    version: int,
    loaded: frozenset[int],
    labels: dict[str, int],
) -> tuple[Collection[int], dict[str, int]]:
    """Return what is loaded besides `version`: what is needed, and what is staged already."""
    pointer, needed = context.online.pointers.get(unit), protected_versions(context, unit)
    # Where Redis lost the pointer, what is loaded is what a restore will need.
    kept = {v for v in loaded if pointer is None or v in needed or v > pointer.version}
    return {*kept, *needed, version}, _stable(context, unit, labels)


def _stable(context: ReleaseContext, unit: str, labels: dict[str, int]) -> dict[str, int]:
    pointer = context.online.pointers.get(unit)
    return {STABLE: pointer.version} if pointer else labels


def _withdraw(context: ReleaseContext, unit: str, version: int) -> None:
    """Let no replica load a version that failed; only so does a server try it again later.

    One that is needed, as the live one is, stays for the replicas that do serve it.
    """
    pointer = context.online.pointers.get(unit)
    is_needed = version in protected_versions(context, unit)

    def without(
        loaded: frozenset[int], labels: dict[str, int]
    ) -> tuple[Collection[int], dict[str, int]]:
        live = dict.fromkeys((STABLE, CANARY), pointer.version) if pointer else labels
        return loaded if is_needed else loaded - {version}, live

    # Where nothing is live, what the version leaves behind may be an empty configuration.
    may_be_empty = pointer is None and not is_needed
    _offer(context, unit, without, wait=_CONFIG_WAIT_SECONDS, may_be_empty=may_be_empty)


def serve(context: ReleaseContext, manifest: Manifest) -> None:
    """Have a version that is on disk served by every replica, besides what they serve.

    Raises:
        ServiceError, ReleaseError: a replica did not take it; the message names it.
    """
    unit, version = manifest.unit, manifest.version
    seconds = context.config.load_timeout_seconds
    _change(context, unit, lambda loaded, labels: ({*loaded, version}, labels), seconds)
    wait_available(context.settings, unit, [version], seconds)


def follow_labels(context: ReleaseContext, unit: str, pointer: Pointer) -> None:
    """Let the labels follow the pointer on every replica.

    Nothing is unloaded: a reader may have taken the pointer just before it moved.

    Raises:
        ServiceError: a replica did not take it; the message names it.
    """
    labels = dict.fromkeys((STABLE, CANARY), pointer.version)
    _change(context, unit, lambda loaded, _: (loaded | pointer.needed, labels), AT_ONCE_SECONDS)


def offer_labels(context: ReleaseContext, unit: str, pointer: Pointer) -> list[str]:
    """Let the labels follow the pointer wherever that is possible; returns what was not."""
    labels = dict.fromkeys((STABLE, CANARY), pointer.version)
    return _offer(
        context,
        unit,
        lambda loaded, _: (loaded | pointer.needed, labels),
        wait=patient(_OFFER_WAIT_SECONDS),
    )


def unload(context: ReleaseContext, unit: str, versions: Collection[int]) -> None:
    """Let no replica serve these versions any more, unless they have become needed.

    Raises:
        ServiceError: a replica did not take it; the message names it.
    """

    def without(
        loaded: frozenset[int], labels: dict[str, int]
    ) -> tuple[Collection[int], dict[str, int]]:
        return loaded - (frozenset(versions) - protected_versions(context, unit)), labels

    config = _edited(context, unit, without)
    if config.model_config_list.config:
        _change(context, unit, without, AT_ONCE_SECONDS)


def serves(replica: Replica, unit: str, version: int) -> str | None:
    """Return None if the replica has the version AVAILABLE, else what it says instead."""
    with ModelServer(replica, Patience.STEP) as server:
        try:
            state, message = server.versions(unit).get(version, ("absent", ""))
        except ServiceError as error:
            return str(error)
    if state == "AVAILABLE":
        return None
    return f"model server at {replica.grpc}: {unit} {version} is {state} {message}".rstrip()


#: From a unit's loaded versions and its labels to those it shall have.
_Edit = Callable[[frozenset[int], dict[str, int]], tuple[Collection[int], dict[str, int]]]


def _change(context: ReleaseContext, unit: str, edit: _Edit, seconds: float) -> None:
    """Change one unit of the configuration on every replica, or on none.

    It is read, changed and sent under a lease: the configuration is one for all units, and each
    call replaces it whole.
    """
    with _config_lease(context):
        send_config(context.settings, _edited(context, unit, edit), seconds)


def _offer(
    context: ReleaseContext, unit: str, edit: _Edit, *, wait: float, may_be_empty: bool = False
) -> list[str]:
    """Change one unit of the configuration wherever that is possible; returns what was not."""
    try:
        with _config_lease(context, wait):
            config = _edited(context, unit, edit)
            if config.model_config_list.config:
                write_config(context.settings.model_dir, config)
                refused = offer_config(context.settings.tf_serving, config, AT_ONCE_SECONDS)
            elif may_be_empty:
                refused = offer_nothing(context.settings)
            else:
                return []
            problems = list(refused.values())
    except (FerryError, OSError) as error:
        problems = [str(error)]
    for problem in problems:
        log.warning("labels of %s: %s", unit, problem)
    return problems


def _config_lease(
    context: ReleaseContext, wait: float = _CONFIG_WAIT_SECONDS
) -> AbstractContextManager[Lease]:
    return context.online.leases.hold(_CONFIG_LEASE, context.owner, wait=wait, take_over=False)


def _edited(context: ReleaseContext, unit: str, edit: _Edit) -> Any:
    model_dir = context.settings.model_dir
    config = without_missing(read_config(model_dir), model_dir)
    versions, labels = edit(configured_versions(config, unit), configured_labels(config, unit))
    on_disk = frozenset(versions) & versions_on_disk(model_dir, unit)
    return with_model(config, unit, model_dir / unit, on_disk, labels)
