"""Tables as a build hands them over, before they are published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipelines.errors import DataError
from pipelines.models.base import Table
from pipelines.release import tables
from tests.release.spark_tables import prepare


@pytest.mark.parametrize("rows", [[], [(1, [1]), (1, [2])]])
def test_a_table_needs_rows_with_unique_ids(
    spark: SparkSession, tmp_path: Path, rows: list[tuple[int, list[int]]]
) -> None:
    frame = spark.createDataFrame(rows, "id bigint, value array<bigint>")
    with pytest.raises(DataError, match="table t: "):
        prepare(spark, [Table("t", "ids", frame)], tmp_path / "tables")


def test_an_id_must_not_be_null(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.createDataFrame([(1, [1]), (None, [2])], "id bigint, value array<bigint>")
    with pytest.raises(DataError, match="table t: 2 rows with 1 different ids"):
        prepare(spark, [Table("t", "ids", frame)], tmp_path / "tables")


def test_a_small_table_is_the_same_wherever_it_is_written(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several parts, and an id whose letters take several bytes.
    monkeypatch.setattr(tables, "_ROWS_PER_PART", 40)
    ids = spark.range(150).selectExpr("concat('é', id * 7919 % 1000) as id", "id as n")
    written = [
        Table("lists", "ids", ids.selectExpr("id", "sequence(n, n + n % 5) as value")),
        Table("vectors", "vector", ids.selectExpr("id", "array(float(n / 3), float(-n)) as value")),
        Table("texts", "text", ids.selectExpr("id", "concat('text ', n, ' ü') as value")),
    ]
    here = prepare(spark, written, tmp_path / "here")
    monkeypatch.setattr(tables, "_ROWS_HERE", 0)
    there = prepare(spark, written, tmp_path / "there")
    assert here.metas == there.metas
    assert here.golden == there.golden
    for table in ("lists", "vectors", "texts"):
        assert len(here.parts(table)) > 1
        assert _rows(here.parts(table)) == _rows(there.parts(table))


def _rows(parts: Sequence[Path]) -> list[tuple[int, str, object]]:
    """Return all rows, of which each bucket must be in one part and in order."""
    found: list[tuple[int, str, object]] = []
    buckets: set[int] = set()
    for part in parts:
        rows = [(r["bucket"], r["id"], r["value"]) for r in pq.read_table(part).to_pylist()]
        assert [(bucket, name) for bucket, name, _ in rows] == sorted((b, i) for b, i, _ in rows)
        assert not buckets & {bucket for bucket, _, _ in rows}
        buckets |= {bucket for bucket, _, _ in rows}
        found += rows
    return sorted(found, key=lambda row: row[:2])
