"""Sealed versions made without Spark: Parquet parts of whole buckets, uploaded as a build does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.models.base import TableKind
from pipelines.online.buckets import pack_buckets, sum_buckets
from pipelines.online.layout import TableMeta, bucket_count, bucket_of
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import FileEntry, Manifest

_TYPES: dict[TableKind, pa.DataType] = {
    "ids": pa.list_(pa.int64()),
    "vector": pa.list_(pa.float32()),
    "text": pa.string(),
}


def rows_of(meta: TableMeta, rows: Mapping[str, Any]) -> pa.RecordBatch:
    """Return rows as a build writes them: sorted by bucket and id."""
    order = sorted((bucket_of(i, meta.buckets), i.encode(), i) for i in rows)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([bucket for bucket, _, _ in order], pa.int32()),
            pa.array([i for _, _, i in order], pa.string()),
            pa.array([rows[i] for _, _, i in order], _TYPES[meta.kind]),
        ],
        ["bucket", "id", "value"],
    )


def describe(
    name: str, kind: TableKind, rows: Mapping[str, Any], bucket_size: int = 32
) -> TableMeta:
    """Return a table's description with its sums."""
    some = next(iter(rows.values()))
    meta = TableMeta(
        name=name,
        kind=kind,
        buckets=bucket_count(len(rows), bucket_size),
        rows=len(rows),
        dimension=len(some) if kind == "vector" else 0,
    )
    total = sum_buckets(pack_buckets(rows_of(meta, rows), meta))
    return meta.model_copy(
        update={
            "payload_bytes": total.payload_bytes,
            "longest": total.longest,
            "checksum": total.hex,
        }
    )


def seal(
    context: ReleaseContext,
    folder: Path,
    tables: Sequence[tuple[TableMeta, Mapping[str, Any]]],
    *,
    version: int = 202603010001,
    parts: int = 3,
) -> Manifest:
    """Upload tables in `parts` parts each and seal them as a version of `recs`."""
    files: list[FileEntry] = []
    for meta, rows in tables:
        batch = rows_of(meta, rows)
        numbers = batch.column("bucket").to_pylist()
        for part in range(parts):
            chosen = [i for i, bucket in enumerate(numbers) if bucket % parts == part]
            if not chosen:
                continue
            path = folder / f"{meta.name}-{part}.parquet"
            pq.write_table(pa.Table.from_batches([batch.take(pa.array(chosen))]), path)
            name = f"tables/{meta.name}/part-{part:05d}.parquet"
            key = context.registry.key("recs", version, name)
            files.append(context.registry.objects.upload(path, key, name))
    manifest = Manifest(
        unit="recs",
        version=version,
        run_date=date(2026, 3, 1),
        run_type="manual",
        run_id="test",
        created_at=datetime.now(UTC),
        code_version="test",
        data={},
        params={},
        metrics={},
        tables=[meta for meta, _ in tables],
        files=files,
    )
    context.registry.seal(manifest)
    return manifest
