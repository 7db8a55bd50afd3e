"""A run date for which the source has nothing: whether it may have been an idle day."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.config import DataConfig
from pipelines.data.ingest import ingest
from pipelines.errors import IdleDayError, NoDataError
from pipelines.lake import Lake
from tests.data.landing import D1, D2, D3, HEADER, at, config, put_events, put_items

DAILY = config(events={"path": "{landing}/ratings/{run_date}.csv"})
HISTORY = config()


def kind_of(spark: SparkSession, data: DataConfig, lake: Lake) -> type[Exception]:
    with pytest.raises(NoDataError) as error:
        ingest(spark, data, lake, D3)
    return error.type


def test_files_for_each_day(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    put_items(lake)
    put_events(lake, f"1,1,4.0,{at(D1)}", name=f"{D1}.csv")
    ingest(spark, DAILY, lake, D1)
    # No file, and one without rows.
    assert kind_of(spark, DAILY, lake) is IdleDayError
    file = Path(lake.landing) / "ratings" / f"{D3}.csv"
    file.write_text(f"{HEADER}\n")
    assert kind_of(spark, DAILY, lake) is IdleDayError
    # Rows that are no events.
    put_events(lake, "3,1,3.0,soon", name=file.name)
    assert kind_of(spark, DAILY, lake) is NoDataError
    # A day before it has got a file, or another one.
    file.unlink()
    put_events(lake, f"1,1,4.0,{at(D2)}", name=f"{D2}.csv")
    assert kind_of(spark, DAILY, lake) is NoDataError
    (Path(lake.landing) / "ratings" / f"{D2}.csv").unlink()
    put_events(lake, f"1,1,4.5,{at(D1)}", f"1,2,4.5,{at(D1)}", name=f"{D1}.csv")
    assert kind_of(spark, DAILY, lake) is NoDataError


def test_a_whole_history(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    put_items(lake)
    # What has no time is of no day.
    known = [f"1,1,4.0,{at(D1)}", f"1,1,4.0,{at(D2)}", "3,1,3.0,soon"]
    put_events(lake, *known)
    ingest(spark, HISTORY, lake, D2)
    assert kind_of(spark, HISTORY, lake) is IdleDayError
    put_events(lake, *known, f"3,1,99,{at(D3)}")
    assert kind_of(spark, HISTORY, lake) is NoDataError
    put_events(lake, *known, f"3,1,4.0,{at(D2)}")
    assert kind_of(spark, HISTORY, lake) is NoDataError
