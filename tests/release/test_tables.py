"""Tables as a build hands them over, before they are published."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.errors import DataError
from pipelines.models.base import Table
from tests.release.spark_tables import prepare


@pytest.mark.parametrize("rows", [[], [(1, [1]), (1, [2])]])
def test_a_table_needs_rows_with_unique_ids(
    spark: SparkSession, tmp_path: Path, rows: list[tuple[int, list[int]]]
) -> None:
    frame = spark.createDataFrame(rows, "id bigint, value array<bigint>")
    with pytest.raises(DataError, match="table t: "):
        prepare(spark, [Table("t", "ids", frame)], tmp_path / "tables")
