"""Staging, the model half: a version is loaded beside what is live, where no reader looks yet."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pipelines.config import Settings
from pipelines.errors import FerryError
from pipelines.online.store import Pointer
from pipelines.progress import progress
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.serving_config import (
    CANARY,
    STABLE,
    apply_config,
    read_config,
    wait_available,
    with_model,
)

_CONFIG_LOCK = "model server configuration"
_LOCK_SECONDS = 600


def bring_model(context: ReleaseContext, manifest: Manifest) -> Path:
    """Bring a version's SavedModel to the model servers' disk; returns its folder.

    It is assembled under a name that no model server takes for a version, flushed to disk and
    renamed, so that a server never sees a half-written version.

    Raises:
        ReleaseError: a file is not what the manifest sealed.
    """
    base = context.settings.model_dir / manifest.unit
    target = base / str(manifest.version)
    if target.exists():
        return target
    temporary = base / f"{manifest.version}.tmp"
    if temporary.exists():
        shutil.rmtree(temporary)
    files = manifest.files_below("saved_model")
    with progress(f"bring {manifest.unit} to disk", sum(f.size for f in files), "bytes") as advance:
        for entry in files:
            path = temporary / entry.name.removeprefix("saved_model/")
            context.registry.download(manifest, entry, path)
            _flush(path)
            advance(entry.size)
    for folder in [p for p in temporary.rglob("*") if p.is_dir()]:
        _flush(folder)
    _flush(temporary)
    temporary.rename(target)
    _flush(base)
    return target


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_model(context: ReleaseContext, manifest: Manifest) -> None:
    """Load a version beside the live one on every replica and label it `canary`.

    Raises:
        ServiceError, ReleaseError: a replica did not take it; the message names it, and all
            replicas have their former configuration.
    """
    settings, seconds = context.settings, context.config.load_timeout_seconds
    unit, version = manifest.unit, manifest.version
    with context.online.lock(_CONFIG_LOCK, context.owner, _LOCK_SECONDS):
        former = read_config(settings.model_dir)
        pointer = context.online.pointer(unit)
        kept = _on_disk(settings, unit, pointer)
        stable = {STABLE: pointer.version} if pointer and pointer.version in kept else {}
        base = settings.model_dir / unit
        config = with_model(former, unit, base, [*kept, version], stable)
        apply_config(settings, config, seconds)
        try:
            wait_available(settings, unit, version, seconds)
            # A label can point only to what is AVAILABLE: so labels go in a second reload.
            labels = {**stable, CANARY: version}
            apply_config(
                settings, with_model(config, unit, base, [*kept, version], labels), seconds
            )
        except FerryError:
            if former.model_config_list.config:
                apply_config(settings, former, seconds)
            raise


def label_stable(context: ReleaseContext, unit: str, pointer: Pointer) -> None:
    """Let the labels follow the pointer; versions older than its predecessor are unloaded."""
    settings = context.settings
    with context.online.lock(_CONFIG_LOCK, context.owner, _LOCK_SECONDS):
        labels = {STABLE: pointer.version, CANARY: pointer.version}
        kept = _on_disk(settings, unit, pointer)
        former = read_config(settings.model_dir)
        config = with_model(former, unit, settings.model_dir / unit, kept, labels)
        apply_config(settings, config, context.config.load_timeout_seconds)


def _on_disk(settings: Settings, unit: str, pointer: Pointer | None) -> list[int]:
    """Return the pointer's versions that are on disk.

    Only these may be asked for: a server that finds none of a model's versions unloads it.
    """
    named = (pointer.version, pointer.previous) if pointer else ()
    return [v for v in named if v and (settings.model_dir / unit / str(v)).is_dir()]
