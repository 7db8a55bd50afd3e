"""Which day a file is of, by the template of its path."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.config import EventSource
from pipelines.data.day_files import DayFiles
from pipelines.data.files import SparkFiles
from pipelines.lake import Lake

D1, D2 = date(2026, 3, 1), date(2026, 3, 2)


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{run_date}.csv", ["{}.csv"]),
        ("{run_date}", ["{}/part-0.csv", "{}/part-1.csv"]),
        ("{run_date}/*.jsonl", ["{}/a.jsonl", "{}/b c.jsonl"]),
        ("y/{run_date}/x-{run_date}-?[ab].csv", ["y/{0}/x-{0}-1a.csv"]),
        ("dt={run_date}/{{a,b}}.csv", ["dt={}/a.csv", "dt={}/b.csv"]),
        ("events ({run_date}).csv", ["events ({}).csv"]),
        ("{run_date}/", ["{}/part-0.csv"]),
        (".//{run_date}/", ["{}/part-0.csv"]),
        ("{run_date}", ["{}/hour=01/part-0.csv", "{}/hour=02/part-0.csv"]),
        ("{run_date}/[!x]*.csv", ["{}/part-0.csv"]),
    ],
)
def test_files_are_found_by_day(
    spark: SparkSession, tmp_path: Path, template: str, names: list[str]
) -> None:
    for day in (D1, D2):
        for name in names:
            path = tmp_path / name.format(day)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x" * day.day)
    for stray in ("_SUCCESS", "2026-02-30.csv", "notes.csv", "latest/part-0.csv"):
        path = tmp_path / stray
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("stray")
    source = EventSource(path=f"{tmp_path}/{template}")
    found = DayFiles(source, Lake("/nowhere")).list(SparkFiles(spark))
    assert {d: sorted(f.path for f in files) for d, files in found.items()} == {
        day: sorted(f"{tmp_path}/{name.format(day)}" for name in names) for day in (D1, D2)
    }
    assert {file.size for file in found[D2]} == {2}


def test_no_files_are_no_days(spark: SparkSession, tmp_path: Path) -> None:
    source = EventSource(path=f"{tmp_path}/{{run_date}}.csv")
    assert DayFiles(source, Lake("/nowhere")).list(SparkFiles(spark)) == {}
