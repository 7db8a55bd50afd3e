from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.spark import size_shuffles

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize(
    ("megabytes", "partitions"), [(0, 4), (1, 4), (80, 10), (81, 11), (100_000, 400)]
)
def test_shuffles_are_sized_by_the_data(
    spark: SparkSession, tmp_path: Path, megabytes: int, partitions: int
) -> None:
    before = spark.conf.get("spark.sql.shuffle.partitions")
    (tmp_path / "dt=2026-01-01").mkdir()
    with (tmp_path / "dt=2026-01-01" / "part.parquet").open("wb") as file:
        file.truncate(megabytes << 20)
    try:
        assert size_shuffles(spark, str(tmp_path), str(tmp_path / "absent")) == partitions
        assert spark.conf.get("spark.sql.shuffle.partitions") == str(partitions)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before or "2")
