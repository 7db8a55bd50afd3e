"""A lake knows its source: another one is refused, in one line that says what to do."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.data.contract import EVENT_COLUMNS
from pipelines.data.identity import (
    LakeSource,
    MovielensFolder,
    Origin,
    SyntheticWorld,
    current_lake_id,
    require_own_source,
    require_same_source,
    reset,
)
from pipelines.data.ingest import days_to_reread, ingest, reread
from pipelines.data.movielens import import_movielens
from pipelines.data.synthetic import generate
from pipelines.errors import OtherSourceError
from pipelines.lake import Lake
from tests.data.landing import D1, D2, D3, at, config, put_events, put_items

WORLD = SyntheticWorld(users=20, items=30, days=5, seed=1, first_day=date(2026, 2, 25))
FOLDER = MovielensFolder(folder="/data/ml", shift_days=12)


def source(**changes: object) -> LakeSource:
    values = {
        "events_path": "{landing}/ratings",
        "origin": WORLD,
        "columns": {name: name for name in EVENT_COLUMNS},
        "timestamp_format": "epoch_seconds",
        "user_id_type": "int64",
        "item_id_type": "int64",
        "time_zone": "UTC",
    }
    return LakeSource.model_validate({**values, **changes})


@pytest.mark.parametrize(
    "now",
    [
        source(),
        # What an earlier Ferry brought in has no name.
        source(origin=None),
    ],
)
def test_the_same_source_is_welcome(now: LakeSource) -> None:
    require_same_source(Lake("/lake"), source(), now)
    require_same_source(Lake("/lake"), now, source())


@pytest.mark.parametrize(
    ("changes", "said", "may_be_adopted"),
    [
        ({"origin": FOLDER}, "MovieLens of /data/ml, shifted by +12 days is another source", True),
        ({"origin": WORLD.model_copy(update={"seed": 2})}, "seed 2", True),
        ({"events_path": "/data/e.csv", "origin": None}, "/data/e.csv is another source", True),
        ({"columns": {"user_id": "u"}}, "column user_id u (was user_id)", True),
        ({"timestamp_format": "epoch_millis"}, "timestamp_format epoch_millis (was", True),
        ({"user_id_type": "string"}, "user_id_type string (was int64)", False),
        ({"time_zone": "Asia/Tokyo"}, "time_zone Asia/Tokyo (was UTC)", False),
    ],
)
def test_another_source_is_refused_in_one_line(
    changes: dict[str, object], said: str, may_be_adopted: bool
) -> None:
    with pytest.raises(OtherSourceError) as error:
        require_same_source(Lake("/lake"), source(), source(**changes))
    message = str(error.value)
    assert message.startswith("the lake /lake was made from synthetic data (20 users, 30 items, ")
    assert said in message
    assert "'ferry data reset' empties the lake" in message
    assert ("'ferry data adopt'" in message) == may_be_adopted
    assert "\n" not in message


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def movielens(tmp_path: Path) -> Path:
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n1,2,4.0,{at(D3)}\n")
    (folder / "movies.csv").write_text("movieId,title,genres\n2,Toy Story (1995),Animation\n")
    return folder


def test_two_data_sets_never_mix(spark: SparkSession, lake: Lake, tmp_path: Path) -> None:
    """The demo first, then one's own, as somebody does who follows the documentation."""
    generate(lake, 20, 30, 5, 1, D3)
    ingest(spark, config(), lake, D3)
    name = current_lake_id(lake)
    assert name
    with pytest.raises(OtherSourceError, match=r"MovieLens of .*/ml is another source"):
        import_movielens(movielens(tmp_path), lake, None)
    origin = Origin.of_landing(lake)
    assert origin is not None
    assert isinstance(origin.brought, SyntheticWorld)
    # Nor by another configuration: the step that plans a run says so, and so does ingest.
    strings = config(user_id_type="string")
    with pytest.raises(OtherSourceError, match="user_id_type string"):
        require_own_source(lake, strings)
    with pytest.raises(OtherSourceError, match="user_id_type string"):
        ingest(spark, strings, lake, D3)
    # Once somebody has said that the old one may go.
    assert reset(lake)
    assert reset(lake) == []
    assert current_lake_id(lake) is None
    import_movielens(tmp_path / "ml", lake, None)
    assert ingest(spark, config(), lake, D3).accepted == 1
    assert current_lake_id(lake) not in (None, name)


def test_other_data_under_the_old_name_are_refused(spark: SparkSession, lake: Lake) -> None:
    put_items(lake)
    days = [date(2024, 2, n) for n in range(1, 13)]
    put_events(lake, *(f"{n},1,4.0,{at(day, n)}" for day in days for n in range(4)))
    ingest(spark, config(), lake, days[-1])
    # Three of four rows are gone from most of the days: a history of something else.
    put_events(
        lake, *(f"9,1,4.0,{at(day)}" for day in days), *(f"{n},1,4,{at(D1)}" for n in (1, 2))
    )
    with pytest.raises(OtherSourceError, match="of 12 days that both have, 12 have less than half"):
        ingest(spark, config(), lake, D1)
    # One user's rows are gone from all of them: that is the same history.
    put_events(lake, *(f"{n},1,4.0,{at(day, n)}" for day in [*days, D1] for n in range(3)))
    assert ingest(spark, config(), lake, D1).accepted_on_run_date == 3


def test_a_lake_of_an_earlier_ferry_works_and_heals(spark: SparkSession, lake: Lake) -> None:
    """Its days have no records: when they were read is taken from the time of their files."""
    put_items(lake)
    put_events(lake, *(f"1,1,4.0,{at(day, 60)}" for day in (D1, D2)))
    ingest(spark, config(), lake, D2)
    Path(lake.made_from).unlink()
    (Path(lake.ratings) / "_days.json").unlink()
    early = at(D2, 3 * 3600)
    os.utime(Path(lake.ratings) / f"dt={D2}", (early, early))
    with pytest.raises(OtherSourceError, match="holds user_id as bigint"):
        ingest(spark, config(user_id_type="string"), lake, D2)

    put_events(lake, *(f"{n},1,4.0,{at(day, 60)}" for day in (D1, D2, D3) for n in (1, 2)))
    settings = config(late_days=0)
    assert days_to_reread(spark, settings, lake) == {D2: datetime.fromtimestamp(early, UTC)}
    # The next run reads it again; D1 was complete, and is out of the reach of late rows.
    summary = ingest(spark, settings, lake, D3)
    assert {day: change.added for day, change in summary.changed_days.items()} == {D2: 1}
    assert LakeSource.of_lake(lake) == LakeSource.configured(settings, lake)
    assert days_to_reread(spark, settings, lake) == {}
    # From then on, what comes too late for its old days is counted.
    put_events(lake, *(f"{n},1,4.0,{at(day, 60)}" for day in (D1, D2, D3) for n in (1, 2)))
    put_events(lake, f"3,1,4.0,{at(D1, 60)}", name="late.csv")
    assert ingest(spark, settings, lake, D3).too_late_rows == {D1: 2}
    assert set(days_to_reread(spark, settings, lake, D1, D1)) == {D1}
    done = reread(spark, settings, lake, {D1})
    assert done.describe() == [f"{D1}: 2 added"]
    assert spark.read.parquet(lake.ratings).count() == 7
