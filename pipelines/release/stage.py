"""Staging: a sealed version is put online beside what is live, where no reader looks yet."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.config import Settings
from pipelines.errors import FerryError, VerificationError, find_in_text
from pipelines.online.layout import TableMeta
from pipelines.online.store import OnlineStore, Pointer
from pipelines.progress import progress
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import FileEntry, Manifest
from pipelines.release.objects import Credentials, ObjectStore
from pipelines.release.serving_config import (
    CANARY,
    STABLE,
    apply_config,
    read_config,
    wait_available,
    with_model,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_CONFIG_LOCK = "model server configuration"
_LOCK_SECONDS = 600
_BATCH_ROWS = 16_384


class _PartWriter(NamedTuple):
    """Writes one Parquet part to Redis; travels to the executors, so it holds plain values."""

    redis_url: str
    redis_prefix: str
    s3_endpoint_url: str | None
    bucket: str
    credentials: Credentials | None
    unit: str
    version: int

    def write(self, meta: TableMeta, key: str, entry: FileEntry) -> int:
        """Download, verify and write one part; return its rows."""
        import pyarrow.parquet as pq

        objects = ObjectStore(self.s3_endpoint_url, self.bucket, self.credentials)
        online = OnlineStore(self.redis_url, self.redis_prefix)
        rows = 0
        try:
            with tempfile.TemporaryDirectory(prefix="ferry-part-") as folder:
                path = Path(folder) / "part.parquet"
                objects.download(key, path, entry)
                for batch in pq.ParquetFile(path).iter_batches(_BATCH_ROWS):
                    rows += online.write_batch(self.unit, self.version, meta, batch)
        finally:
            online.close()
        return rows


def stage_tables(spark: SparkSession, context: ReleaseContext, manifest: Manifest) -> None:
    """Write a version's tables to Redis, from the executors; described there when complete.

    Raises:
        VerificationError: Redis holds another number of rows than the manifest says.
    """
    settings, online = context.settings, context.online
    writer = _PartWriter(
        settings.redis_url.get_secret_value(),
        settings.redis_prefix,
        settings.s3_endpoint_url,
        settings.bucket,
        Credentials.current(),
        manifest.unit,
        manifest.version,
    )
    parts = [
        (meta, context.registry.key(manifest.unit, manifest.version, entry.name), entry)
        for meta in manifest.tables
        for entry in manifest.table_parts(meta.name)
    ]
    written = spark.sparkContext.accumulator(0)

    def write(part: tuple[TableMeta, str, FileEntry]) -> None:
        written.add(writer.write(*part))

    rdd = spark.sparkContext.parallelize(parts, len(parts))
    total = sum(meta.rows for meta in manifest.tables)
    with progress(f"publish {manifest.unit} to Redis", total) as advance:
        seen = 0
        with ThreadPoolExecutor(max_workers=1) as pool:
            job = pool.submit(rdd.foreach, write)
            while not job.done():
                wait([job], timeout=0.5)
                advance(written.value - seen)
                seen = written.value
        try:
            job.result()
        except Exception as error:
            if ours := find_in_text(str(error)):
                raise ours from error
            raise

    for meta in manifest.tables:
        stored = online.count_rows(manifest.unit, manifest.version, meta)
        if stored != meta.rows:
            raise VerificationError(
                f"{manifest.unit} {manifest.version}, table {meta.name}: Redis at "
                f"{online.address} holds {stored} rows of {meta.rows}"
            )
    online.write_meta(manifest.unit, manifest.version, manifest.tables)


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
