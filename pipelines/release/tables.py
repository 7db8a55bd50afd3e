"""Tables on their way to Redis: Parquet parts that each hold whole buckets.

A table is computed once, by Spark, into parts with the columns ``bucket`` (int), ``id`` (string)
and ``value``, sorted by bucket. The parts are the version's artifacts in object storage, and what
the executors write to Redis from, now or whenever Redis must be rebuilt.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from pipelines.config import IdType
from pipelines.errors import DataError, ReleaseError
from pipelines.models.base import Table
from pipelines.online.buckets import TableSum, pack_buckets, sum_buckets, whole_buckets
from pipelines.online.layout import TableMeta, bucket_count
from pipelines.release.manifest import GoldenTable

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

_ROWS_PER_PART = 50_000
_MAX_PARTS = 200
_INDEX = "tables.json"
# Rows that are packed at once: enough for Arrow to pay off, few enough to stay in the cache.
_MAX_BATCH_ROWS = 4096
_MIN_BATCH_ROWS = 16
_BATCH_BYTES = 8 << 20


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    metas: list[TableMeta]
    golden: list[GoldenTable]


@dataclass(frozen=True)
class PreparedTables:
    """Tables under `folder`, ready to upload."""

    folder: Path
    metas: list[TableMeta]
    golden: list[GoldenTable]

    @classmethod
    def load(cls, folder: Path) -> PreparedTables:
        """Read what :func:`prepare_tables` left in `folder`."""
        index = _Index.model_validate_json((folder / _INDEX).read_text(encoding="utf-8"))
        return cls(folder, index.metas, index.golden)

    def only(self, names: Sequence[str]) -> PreparedTables:
        """Return just the named tables.

        Raises:
            ReleaseError: one of them was not prepared.
        """
        known = {meta.name for meta in self.metas}
        if missing := sorted(set(names) - known):
            raise ReleaseError(f"{self.folder}: no table {', '.join(missing)}: run features again")
        return PreparedTables(
            self.folder,
            [meta for meta in self.metas if meta.name in names],
            [rows for rows in self.golden if rows.table in names],
        )

    def parts(self, table: str) -> list[Path]:
        """Return the Parquet files of a table, in order."""
        return sorted((self.folder / table).glob("*.parquet"))


def prepare_tables(
    tables: Sequence[Table],
    folder: Path,
    *,
    item_id_type: IdType,
    bucket_size: int,
    golden_size: int,
) -> PreparedTables:
    """Write tables as bucketed Parquet below `folder`, with a sample of golden rows.

    Raises:
        DataError: a table has no rows, or an id twice or null.
    """
    metas, golden = [], []
    for table in tables:
        meta, rows = _prepare(table, folder, item_id_type, bucket_size, golden_size)
        metas.append(meta)
        golden.append(rows)
    index = _Index(metas=metas, golden=golden)
    (folder / _INDEX).write_text(index.model_dump_json(), encoding="utf-8")
    return PreparedTables(folder, metas, golden)


def _prepare(
    table: Table, folder: Path, item_id_type: IdType, bucket_size: int, golden_size: int
) -> tuple[TableMeta, GoldenTable]:
    from pyspark import StorageLevel
    from pyspark.sql import functions as sf

    frame = table.frame.select(sf.col("id").cast("string").alias("id"), "value")
    # Counted, sampled and written: computed once. On disk, since a table may outgrow memory.
    frame = frame.persist(StorageLevel.DISK_ONLY)
    try:
        rows, distinct = frame.agg(sf.count("id"), sf.count_distinct("id")).first() or (0, 0)
        if rows == 0 or rows != distinct:
            raise DataError(
                f"table {table.name}: {rows} rows with {distinct} different ids; "
                "ids must be unique and there must be some"
            )
        buckets = bucket_count(rows, bucket_size)
        sample = _sample(frame, golden_size)
        parts = min(_MAX_PARTS, -(-rows // _ROWS_PER_PART))
        (
            frame.withColumn("bucket", (sf.crc32(sf.encode("id", "UTF-8")) % buckets).cast("int"))
            .repartition(parts, "bucket")
            .sortWithinPartitions("bucket", "id")
            .select("bucket", "id", "value")
            .write.mode("overwrite")
            .parquet(str(folder / table.name))
        )
    finally:
        frame.unpersist()
    dimension = len(next(iter(sample.values()))) if table.kind == "vector" else 0
    meta = TableMeta(
        name=table.name,
        kind=table.kind,
        buckets=buckets,
        rows=rows,
        id_type=item_id_type,
        dimension=dimension,
    )
    paths = sorted((folder / table.name).glob("*.parquet"))
    total = _sum_parts(table.frame.sparkSession, paths, meta)
    if total.rows != rows:
        raise DataError(f"table {table.name}: {total.rows} rows were written of {rows}")
    sealed = meta.model_copy(
        update={
            "payload_bytes": total.payload_bytes,
            "longest": total.longest,
            "checksum": total.hex,
        }
    )
    return sealed, GoldenTable(table=table.name, rows=sample)


def _sum_parts(spark: SparkSession, paths: Sequence[Path], meta: TableMeta) -> TableSum:
    """Sum up a table on the executors, from the files that it will be written to Redis from."""

    def sum_part(path: str) -> TableSum:
        batches = part_batches(Path(path))
        return sum_buckets(bucket for batch in batches for bucket in pack_buckets(batch, meta))

    parts = spark.sparkContext.parallelize([str(path) for path in paths], max(1, len(paths)))
    return functools.reduce(TableSum.plus, parts.map(sum_part).collect(), TableSum())


def part_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield a part's rows in batches of whole buckets, of some megabytes at most."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        fitting = _BATCH_BYTES * file.metadata.num_rows // max(1, size)
        rows = max(_MIN_BATCH_ROWS, min(_MAX_BATCH_ROWS, fitting))
        yield from whole_buckets(file.iter_batches(rows))


def _sample(frame: DataFrame, size: int) -> dict[str, list[int] | list[str] | list[float] | str]:
    """Return `size` rows that are the same whenever the ids are."""
    from pyspark.sql import functions as sf

    rows = frame.orderBy(sf.xxhash64("id"), "id").limit(size).collect()
    return {row["id"]: row["value"] for row in rows}
