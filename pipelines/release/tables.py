"""Tables on their way to Redis: Parquet parts that each hold whole buckets.

A table is computed once, by Spark, into parts with the columns ``bucket`` (int), ``id`` (string)
and ``value``, sorted by bucket. The parts are the version's artifacts in object storage, and what
the executors write to Redis from, now or whenever Redis must be rebuilt.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

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
#: A table of so few rows is written by the driver: a dozen of Spark's jobs take longer. With lists
#: of 50 it holds 80 MB of them.
_ROWS_HERE = 200_000
_INDEX = "tables.json"
# Rows that are packed at once: enough for Arrow to pay off, few enough to stay in the cache.
_MAX_BATCH_ROWS = 4096
_MIN_BATCH_ROWS = 16
_BATCH_BYTES = 8 << 20

#: Golden rows by id.
Sample = dict[str, list[int] | list[str] | list[float] | str]


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
    # Counted, and then written: computed once. On disk, since a table may outgrow memory.
    frame = frame.persist(StorageLevel.DISK_ONLY)
    target = folder / table.name
    try:
        rows = frame.count()
        buckets = bucket_count(max(1, rows), bucket_size)
        write = _write_here if rows <= _ROWS_HERE else _write_on_executors
        sample = write(table.name, frame, target, rows, buckets, golden_size)
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
    paths = sorted(target.glob("*.parquet"))
    if rows <= _ROWS_HERE:
        total = functools.reduce(TableSum.plus, (_sum_part(path, meta) for path in paths))
    else:
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


def _write_on_executors(
    name: str, frame: DataFrame, target: Path, rows: int, buckets: int, golden_size: int
) -> Sample:
    """Write a table from where its rows are; returns the golden rows."""
    from pyspark.sql import functions as sf

    _require_unique(name, rows, frame.agg(sf.count_distinct("id")).collect()[0][0])
    checksum = sf.crc32(sf.encode("id", "UTF-8"))
    golden = frame.orderBy(checksum, "id").limit(golden_size).collect()
    (
        frame.withColumn("bucket", (checksum % buckets).cast("int"))
        .repartition(_part_count(rows), "bucket")
        .sortWithinPartitions("bucket", "id")
        .select("bucket", "id", "value")
        .write.mode("overwrite")
        .parquet(str(target))
    )
    return {row["id"]: row["value"] for row in golden}


def _write_here(
    name: str, frame: DataFrame, target: Path, rows: int, buckets: int, golden_size: int
) -> Sample:
    """Write a small table in this process, as :func:`_write_on_executors` does."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = frame.toArrow().combine_chunks()
    ids = table["id"]
    _require_unique(name, rows, len(pc.unique(ids.drop_null())))
    checksums = np.fromiter((crc32(i.encode()) for i in ids.to_pylist()), np.uint32, rows)
    first = pa.table({"checksum": checksums, "id": ids}).sort_by(
        [("checksum", "ascending"), ("id", "ascending")]
    )["id"][:golden_size]
    golden = table.take(pc.index_in(first, value_set=ids.combine_chunks())).to_pylist()
    numbers = pa.array((checksums % buckets).astype(np.int32))
    placed = table.add_column(0, "bucket", numbers).sort_by(
        [("bucket", "ascending"), ("id", "ascending")]
    )
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    parts = _part_count(rows)
    for part in range(parts):
        is_of_part = pa.array(placed["bucket"].to_numpy() % parts == part)
        if any_rows := placed.filter(is_of_part):
            pq.write_table(any_rows, target / f"part-{part:05}.parquet", write_page_checksum=True)
    return {row["id"]: row["value"] for row in golden}


def _require_unique(name: str, rows: int, distinct: int) -> None:
    if rows == 0 or rows != distinct:
        raise DataError(
            f"table {name}: {rows} rows with {distinct} different ids; "
            "ids must be unique and there must be some"
        )


def _part_count(rows: int) -> int:
    return min(_MAX_PARTS, -(-rows // _ROWS_PER_PART))


def _sum_part(path: Path, meta: TableMeta) -> TableSum:
    batches = part_batches(path)
    return sum_buckets(bucket for batch in batches for bucket in pack_buckets(batch, meta))


def _sum_parts(spark: SparkSession, paths: Sequence[Path], meta: TableMeta) -> TableSum:
    """Sum up a table on the executors, from the files that it will be written to Redis from."""

    def sum_part(path: str) -> TableSum:
        return _sum_part(Path(path), meta)

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
