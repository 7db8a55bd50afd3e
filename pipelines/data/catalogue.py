"""The item catalogue and the users: small tables that every ingest writes anew."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import DataConfig
from pipelines.data.files import SparkFiles
from pipelines.data.source import FILE, IS_MALFORMED, POSITION, RAW, read_source
from pipelines.data.values import as_genres, as_id, as_text, as_year
from pipelines.errors import DataError

_ROWS_PER_FILE = 1_000_000


@dataclass(frozen=True)
class TableCounts:
    """What became of the rows of a table: written, left out for a later one, rejected."""

    written: int
    repeated: int
    rejected: int


def ingest_items(spark: SparkSession, config: DataConfig, path: str, target: str) -> TableCounts:
    """Write the catalogue (:func:`pipelines.data.contract.item_schema`) to `target`.

    A row without a valid id is rejected; of rows with the same id the last one (by file name,
    then line) wins. Both are counted.

    Raises:
        DataError: no source, a missing column, or no valid item.
    """
    rows = read_source(spark, config.items, path, ("item_id", "title", "genres"), ("release_year",))
    types = {field.name: field.dataType for field in rows.schema.fields}
    year = as_text(sf.col("release_year"), types["release_year"])
    items = rows.select(
        as_id(as_text(sf.col("item_id"), types["item_id"]), config.item_id_type).alias("item_id"),
        as_text(sf.col("title"), types["title"]).alias("title"),
        as_genres(sf.col("genres"), types["genres"], config.items.genre_separator).alias("genres"),
        as_year(year).alias("release_year"),
        IS_MALFORMED,
        POSITION,
    )
    counts = _replace_table(spark, items, "item_id", target)
    if counts.written == 0:
        raise DataError(f"{path}: the catalogue is empty: no row with a valid item_id")
    return counts


def ingest_users(
    spark: SparkSession, config: DataConfig, path: str, target: str
) -> TableCounts | None:
    """Write the users to `target`: ``user_id`` and every mapped column as the source has it.

    The rules for rows are those of :func:`ingest_items`. Without a configured source nothing is
    written.

    Raises:
        DataError: no source, or a missing column.
    """
    if config.users is None:
        return None
    attributes = [name for name in config.users.columns if name != "user_id"]
    rows = read_source(spark, config.users, path, ("user_id", *attributes)).drop(RAW, FILE)
    data_type = rows.schema["user_id"].dataType
    user_id = as_id(as_text(sf.col("user_id"), data_type), config.user_id_type)
    return _replace_table(spark, rows.withColumn("user_id", user_id), "user_id", target)


def _replace_table(spark: SparkSession, rows: DataFrame, key: str, target: str) -> TableCounts:
    """Write the last valid row of each key beside `target`, then put it in its place."""
    values = [name for name in rows.columns if name not in (IS_MALFORMED, POSITION)]
    rows = rows.persist()
    try:
        is_valid = sf.col(key).isNotNull() & ~sf.col(IS_MALFORMED)
        counted = rows.agg(
            sf.count("*").alias("all"), sf.count_if(is_valid).alias("valid")
        ).collect()[0]
        last = sf.max_by(sf.struct(*values), POSITION)
        latest = rows.where(is_valid).groupBy(key).agg(last.alias("row")).select("row.*")
        beside = f"{target}.{uuid.uuid4().hex}"
        files = SparkFiles(spark)
        try:
            file_count = 1 + counted["valid"] // _ROWS_PER_FILE
            latest.repartition(file_count, key).sortWithinPartitions(key).write.parquet(beside)
            written = spark.read.parquet(beside).count()
            if written:
                files.replace(beside, target)
        finally:
            files.delete(beside)
    finally:
        rows.unpersist()
    return TableCounts(
        written=written,
        repeated=counted["valid"] - written,
        rejected=counted["all"] - counted["valid"],
    )
