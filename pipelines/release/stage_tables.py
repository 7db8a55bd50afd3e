"""Staging, the Redis half: a version's tables are written beside what is live, and read back."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from pipelines.errors import VerificationError
from pipelines.online.buckets import TableSum, sum_buckets
from pipelines.online.layout import TableMeta
from pipelines.progress import progress
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.part_writer import Part, PartReport, PartWriter
from pipelines.release.preflight import check_memory
from pipelines.release.runners import Runner


class StagedTable(BaseModel):
    """One table as it is in Redis now, and what it cost.

    `write_seconds` and `verify_seconds` add up over all that worked at the same time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    payload_bytes: int
    redis_bytes: int
    checksum: str
    sampled: int
    write_seconds: float
    verify_seconds: float


class StagedTables(BaseModel):
    """What :func:`stage_tables` wrote and compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    version: int
    tables: dict[str, StagedTable]
    #: What the memory check found before anything was written.
    memory: str
    seconds: float

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables.values())

    @property
    def redis_bytes(self) -> int:
        """Bytes of all tables in Redis."""
        return sum(table.redis_bytes for table in self.tables.values())

    def describe(self) -> str:
        """Return all of it in one line."""
        write = sum(table.write_seconds for table in self.tables.values())
        verify = sum(table.verify_seconds for table in self.tables.values())
        return (
            f"{self.rows:,} rows in {len(self.tables)} tables, {self.redis_bytes / 1e6:,.1f} MB in "
            f"Redis, in {self.seconds:.1f}s ({verify / max(write + verify, 1e-9):.0%} of the work "
            f"was reading back); counts and checksums agree"
        )


def stage_tables(
    context: ReleaseContext, manifest: Manifest, runner: Runner, *, replace: bool = False
) -> StagedTables:
    """Write a version's tables to Redis, read them back, and describe them there when complete.

    What an interrupted attempt left is completed. With `replace` each bucket takes the place of
    what is stored under its key in one step: for a version that may be live.

    Raises:
        CapacityError: they would not fit; nothing is written then.
        VerificationError: Redis holds something else than the manifest says.
        ReleaseError: an artifact is not what the manifest sealed.
        ServiceError: Redis or object storage does not answer or refuses.
    """
    started = time.monotonic()
    memory = check_memory(context, manifest)
    writer = PartWriter.of(context.settings, manifest, replace=replace)
    parts = [
        Part(meta, context.registry.key(manifest.unit, manifest.version, entry.name), entry)
        for meta in manifest.tables
        for entry in manifest.table_parts(meta.name)
    ]
    total = sum(meta.rows for meta in manifest.tables)
    with progress(f"publish {manifest.unit} to Redis", total) as advance:
        reports = runner.run(writer.write, parts, advance)
    staged = {
        meta.name: _complete(context, manifest, meta, [r for r in reports if r.table == meta.name])
        for meta in manifest.tables
    }
    context.online.write_meta(manifest.unit, manifest.version, manifest.tables)
    return StagedTables(
        unit=manifest.unit,
        version=manifest.version,
        tables=staged,
        memory=memory,
        seconds=time.monotonic() - started,
    )


def _complete(
    context: ReleaseContext, manifest: Manifest, meta: TableMeta, reports: Sequence[PartReport]
) -> StagedTable:
    """Compare a whole table with the manifest: rows by Redis's own count, and the checksum."""
    online = context.online
    where = f"{manifest.unit} {manifest.version}, table {meta.name}: Redis at {online.address}"
    stored = online.count_rows(manifest.unit, manifest.version, meta)
    if stored != meta.rows:
        raise VerificationError(f"{where} holds {stored} rows of {meta.rows}")
    total = functools.reduce(TableSum.plus, (report.total for report in reports), TableSum())
    # Every part was read back as it was written: so it is the parts that are not what was built.
    if meta.checksum is not None and total.hex != meta.checksum:
        raise VerificationError(
            f"{where} holds rows with checksum {total.hex}, the manifest says {meta.checksum}"
        )
    return StagedTable(
        rows=stored,
        payload_bytes=total.payload_bytes,
        redis_bytes=online.memory_of(manifest.unit, manifest.version, meta),
        checksum=total.hex,
        sampled=sum(report.sampled for report in reports),
        write_seconds=sum(report.write_seconds for report in reports),
        verify_seconds=sum(report.verify_seconds for report in reports),
    )


def verify_checksums(context: ReleaseContext, manifest: Manifest) -> list[str]:
    """Read all of a version's tables back and compare their checksums; returns what was checked.

    Raises:
        VerificationError: a table in Redis is not what the manifest sealed.
    """
    checks = []
    for meta in manifest.tables:
        buckets = context.online.read_buckets(
            manifest.unit, manifest.version, meta, range(meta.buckets)
        )
        total = sum_buckets(buckets)
        if meta.checksum is not None and total.hex != meta.checksum:
            raise VerificationError(
                f"{manifest.unit} {manifest.version}, table {meta.name}: Redis at "
                f"{context.online.address} holds rows with checksum {total.hex}, the manifest "
                f"says {meta.checksum}"
            )
        checks.append(f"the checksum of all {total.rows:,} rows of {meta.name}")
    return checks
