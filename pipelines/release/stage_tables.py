"""Staging, the Redis half: a version's tables are written beside what is live, and read back."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from pipelines.errors import CapacityError, ReleaseError, VerificationError
from pipelines.evaluation.gates import GateResult, not_compared, refusal
from pipelines.online.buckets import TableSum, sum_buckets
from pipelines.online.layout import TableMeta
from pipelines.progress import progress
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest, StagedTable, StagedTables
from pipelines.release.part_writer import Part, PartReport, PartWriter
from pipelines.release.preflight import check_memory
from pipelines.release.runners import Runner


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
    gates = [check_memory(context, manifest)]
    _require(context, manifest, {}, gates, started, CapacityError)
    writer = PartWriter.of(context.settings, manifest, replace=replace)
    parts = [
        Part(meta, context.registry.key(manifest.unit, manifest.version, entry.name), entry)
        for meta in manifest.tables
        for entry in manifest.table_parts(meta.name)
    ]
    total = sum(meta.rows for meta in manifest.tables)
    with progress(f"publish {manifest.unit} to Redis", total) as advance:
        reports = runner.run(writer.write, parts, advance)
    staged = {}
    for meta in manifest.tables:
        staged[meta.name] = _sum_up(context, manifest, meta, reports)
        gates += _table_gates(context, manifest, meta, staged[meta.name])
    record = _require(context, manifest, staged, gates, started, VerificationError)
    context.online.write_meta(manifest.unit, manifest.version, manifest.tables)
    return record


def _require(
    context: ReleaseContext,
    manifest: Manifest,
    tables: dict[str, StagedTable],
    gates: list[GateResult],
    started: float,
    error: type[ReleaseError],
) -> StagedTables:
    """Record the verdicts so far; raise `error` if one refuses."""
    record = StagedTables(
        unit=manifest.unit,
        version=manifest.version,
        tables=tables,
        gates=gates,
        at=datetime.now(UTC),
        seconds=time.monotonic() - started,
    )
    refused = refusal(gates)
    if tables or refused:
        context.registry.record_staging(record)
    if refused:
        raise error(refused)
    return record


def _sum_up(
    context: ReleaseContext, manifest: Manifest, meta: TableMeta, reports: Sequence[PartReport]
) -> StagedTable:
    ours = [report for report in reports if report.table == meta.name]
    total = functools.reduce(TableSum.plus, (report.total for report in ours), TableSum())
    return StagedTable(
        rows=context.online.count_rows(manifest.unit, manifest.version, meta),
        payload_bytes=total.payload_bytes,
        redis_bytes=context.online.memory_of(manifest.unit, manifest.version, meta),
        checksum=total.hex,
        sampled=sum(report.sampled for report in ours),
        write_seconds=sum(report.write_seconds for report in ours),
        verify_seconds=sum(report.verify_seconds for report in ours),
    )


def _table_gates(
    context: ReleaseContext, manifest: Manifest, meta: TableMeta, staged: StagedTable
) -> list[GateResult]:
    """Compare a whole table with the manifest: rows by Redis's own count, and the checksum.

    Every part was read back as it was written: where the checksum differs, it is the parts that
    are not what was built.
    """
    address = context.online.address
    where = f"{manifest.unit} {manifest.version}, table {meta.name}: Redis at {address}"
    counted = staged.rows == meta.rows
    rows = GateResult(
        group="publish",
        name=f"rows of {meta.name}",
        verdict="passed" if counted else "refused",
        value=staged.rows,
        threshold=meta.rows,
        reason=f"{where} holds {staged.rows} rows of {meta.rows}",
    )
    name = f"checksum of {meta.name}"
    if meta.checksum is None:
        reason = f"{where}: an earlier Ferry sealed no checksum"
        return [rows, not_compared("publish", name, reason)]
    same = staged.checksum == meta.checksum
    says = "as" if same else f"but {meta.checksum} is what"
    checksum = GateResult(
        group="publish",
        name=name,
        verdict="passed" if same else "refused",
        reason=f"{where} holds rows with checksum {staged.checksum}, {says} the manifest says",
    )
    return [rows, checksum]


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
