"""Days that are written aside, put in place, and brought back after a crash."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from pipelines.data import day_parts
from pipelines.data.day_parts import STAGING, clear_staging, put_in_place, write_parts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIRST = date(2026, 3, 1)


def rows(table: Path) -> dict[str, list[int]]:
    """Return the rows of each day of a table, as they lie in its files."""
    return {
        day.name.removeprefix("dt="): [
            row["n"] for file in sorted(day.iterdir()) for row in pq.read_table(file).to_pylist()
        ]
        for day in table.glob("dt=*")
    }


def test_each_day_of_a_partition_is_one_file_however_its_rows_come(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Days that lie in several batches, and several days in one.
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "7")
    monkeypatch.setattr(day_parts, "_ROWS_PER_GROUP", 4)
    try:
        counts = [1, 20, 3, 1, 7, 7]
        content = [(FIRST + timedelta(d), n) for d, size in enumerate(counts) for n in range(size)]
        frame = spark.createDataFrame(content, "dt date, n int").coalesce(1)
        parts = write_parts(frame.sortWithinPartitions("dt", "n"), tmp_path / STAGING)
        assert {day: len(files) for day, files in parts.items()} == {
            FIRST + timedelta(d): 1 for d in range(len(counts))
        }
        put_in_place(parts, tmp_path, tmp_path / STAGING)
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    expected = {str(FIRST + timedelta(d)): list(range(size)) for d, size in enumerate(counts)}
    assert rows(tmp_path) == expected
    assert [path for path in tmp_path.iterdir() if not path.name.startswith("dt=")] == []


def test_a_day_that_a_crash_left_out_of_the_table_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def day(folder: Path, content: str) -> Path:
        file = folder / f"dt={FIRST}" / f"{content}.parquet"
        file.parent.mkdir(parents=True)
        file.write_text(content)
        return file

    day(tmp_path, "old")
    staging = tmp_path / f"{STAGING}1"
    new = day(staging / "attempt", "new")
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self == new.parent:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", killed)
        put_in_place({FIRST: [new]}, tmp_path, staging)
    assert not (tmp_path / f"dt={FIRST}").exists()
    clear_staging(tmp_path)
    assert [file.name for file in (tmp_path / f"dt={FIRST}").iterdir()] == ["old.parquet"]
    assert not staging.exists()


def test_a_day_that_is_in_place_stays_when_what_it_replaced_is_cleared(tmp_path: Path) -> None:
    for folder, name in ((tmp_path, "new"), (tmp_path / f"{STAGING}1" / "replaced", "old")):
        (folder / f"dt={FIRST}").mkdir(parents=True)
        (folder / f"dt={FIRST}" / name).touch()
    clear_staging(tmp_path)
    assert [file.name for file in (tmp_path / f"dt={FIRST}").iterdir()] == ["new"]
