"""Ingest into a real lake: days, reruns, quarantine, interruptions, catalogue."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.data import days as days_module
from pipelines.data import writing
from pipelines.data.catalogue import ingest_items, ingest_users
from pipelines.data.contract import DayChange, Reason
from pipelines.data.days import UnfinishedDays, held_days, write_days
from pipelines.data.files import SparkFiles
from pipelines.data.identity import LakeSource, reset
from pipelines.data.ingest import ingest
from pipelines.errors import DataError
from pipelines.lake import Lake
from tests.data.landing import D1, D2, D3, D4, at, config, put_events, put_items, write


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    put_items(lake)
    return lake


def events(spark: SparkSession, lake: Lake) -> set[tuple[object, ...]]:
    rows = spark.read.parquet(lake.ratings).selectExpr(
        "dt", "user_id", "item_id", "rating", "unix_micros(timestamp) div 1000000"
    )
    return {tuple(row) for row in rows.collect()}


def quarantine(spark: SparkSession, lake: Lake) -> set[tuple[object, ...]]:
    if not list(Path(lake.quarantine).glob("dt=*")):
        return set()
    rows = spark.read.parquet(lake.quarantine).select("dt", "reason", "raw")
    return {tuple(row) for row in rows.collect()}


def files(folder: str, day: date) -> list[str]:
    return sorted(p.name for p in (Path(folder) / f"dt={day}").glob("*.parquet"))


def test_a_whole_history_gives_the_run_date_and_the_days_that_the_lake_lacks(
    spark: SparkSession, lake: Lake
) -> None:
    put_events(
        lake,
        f"1,1,4.0,{at(D1, 5)}",
        f"1,1,4.0,{at(D1, 5)}",
        f"1,1,4.5,{at(D1, 5)}",
        f"1,1,4.0,{at(D1, 6)}",
        f"2,9,3.0,{at(D3)}",
        f"2,x,3.0,{at(D1)}",
        "3,1,3.0,soon",
        f"3,1,3.0,{at(D4)}",
        f"3,y,3.0,{at(D4)}",
    )
    first = ingest(spark, config(), lake, D3)
    assert first.model_dump(exclude={"events_path", "items_path"}) == {
        "run_date": D3,
        "input_rows": 7,
        "accepted": 4,
        "accepted_on_run_date": 1,
        "quarantined": {Reason.ITEM_ID_INVALID: 1, Reason.TIMESTAMP_INVALID: 1},
        "exact_duplicates": 1,
        "earlier_rows": 0,
        "later_rows": 2,
        "days_written": 2,
        "unknown_items": 1,
        "items": 3,
        "repeated_items": 0,
        "rejected_items": 0,
        "users": None,
        "complete": True,
        "changed_days": {},
        "too_late_rows": {},
        "unreadable_days": {},
        "incomplete_days": [],
    }
    expected = {
        (D1, 1, 1, 4.0, at(D1, 5)),
        (D1, 1, 1, 4.5, at(D1, 5)),
        (D1, 1, 1, 4.0, at(D1, 6)),
        (D3, 2, 9, 3.0, at(D3)),
    }
    assert events(spark, lake) == expected
    assert quarantine(spark, lake) == {
        (D1, "item_id_invalid", f"2,x,3.0,{at(D1)}"),
        (D3, "timestamp_invalid", "3,1,3.0,soon"),
    }

    # A late row reaches its day, and one of a day that the lake lacks. What the source has lost of
    # its beginning stays in the lake; of any other day, what it has taken out is gone.
    put_events(lake, f"1,1,4.0,{at(D1, 5)}", f"1,1,4.0,{at(D1, 7)}", f"5,2,1.0,{at(D2)}")
    put_events(lake, f"2,2,3.5,{at(D3, 9)}", name="b.csv")
    second = ingest(spark, config(), lake, D3)
    assert (second.input_rows, second.accepted, second.earlier_rows) == (4, 4, 0)
    assert second.changed_days == {
        D1: DayChange(added=1, replaced=0, removed=0),
        D3: DayChange(added=0, replaced=1, removed=0),
    }
    assert events(spark, lake) == {
        *(event for event in expected if event[0] == D1),
        (D1, 1, 1, 4.0, at(D1, 7)),
        (D2, 5, 2, 1.0, at(D2)),
        (D3, 2, 2, 3.5, at(D3, 9)),
    }
    assert {day for day, _, _ in quarantine(spark, lake)} == {D1}
    before = files(lake.ratings, D2)
    # Nothing has changed: only the run date is written, and what is known in part is looked at.
    third = ingest(spark, config(), lake, D3)
    assert (third.input_rows, third.earlier_rows, third.changed_days) == (3, 1, {})
    assert files(lake.ratings, D2) == before


def test_a_daily_source_gives_its_own_day_and_what_came_late(
    spark: SparkSession, lake: Lake
) -> None:
    settings = config(events={"path": "{landing}/ratings/{run_date}.csv"}, late_days=1)
    put_events(lake, f"1,1,4.0,{at(D2, 86_399)}", name=f"{D2}.csv")
    ingest(spark, settings, lake, D2)
    put_events(
        lake,
        f"1,1,4.0,{at(D3)}",
        f"1,2,4.0,{at(D2)}",
        f"1,1,4.0,{at(D2, 86_399)}",
        f"1,3,4.0,{at(D4)}",
        f"1,3,4.0,{at(D1)}",
        name=f"{D3}.csv",
    )
    summary = ingest(spark, settings, lake, D3)
    assert (summary.input_rows, summary.accepted, summary.later_rows) == (5, 3, 0)
    assert summary.quarantined == {Reason.OUTSIDE_DAY: 1, Reason.TOO_LATE: 1}
    assert summary.too_late_rows == {D1: 1}
    # The row that D2 has already is there once.
    assert summary.changed_days == {D2: DayChange(added=1, replaced=0, removed=0)}
    assert {event[:3] for event in events(spark, lake)} == {(D2, 1, 1), (D2, 1, 2), (D3, 1, 1)}
    assert {day for day, _, _ in quarantine(spark, lake)} == {D3}
    with pytest.raises(DataError, match=f"{D4}.csv: no such file"):
        ingest(spark, settings, lake, D4)


def test_a_changed_file_replaces_the_late_rows_that_it_gave(
    spark: SparkSession, lake: Lake
) -> None:
    settings = config(events={"path": "{landing}/ratings/{run_date}.csv"})
    put_events(lake, f"1,1,4.0,{at(D1)}", name=f"{D1}.csv")
    put_events(lake, f"2,1,4.0,{at(D2)}", f"3,1,4.0,{at(D1, 9)}", name=f"{D2}.csv")
    ingest(spark, settings, lake, D2)
    put_events(lake, f"2,1,4.0,{at(D2)}", f"3,1,1.0,{at(D1, 9)}", name=f"{D2}.csv")
    put_events(lake, f"4,1,4.0,{at(D3)}", name=f"{D3}.csv")
    # The first day's file is broken meanwhile: that must not keep the run date from being built.
    whole = (Path(lake.landing) / "ratings" / f"{D1}.csv").read_bytes()
    (Path(lake.landing) / "ratings" / f"{D1}.csv").unlink()
    broken = Path(lake.landing) / "ratings" / f"{D1}.csv.gz"
    broken.write_bytes(gzip.compress(whole * 500)[:60])
    either = config(events={"path": "{landing}/ratings/{run_date}.csv*"})
    either_source = LakeSource.configured(either, lake)
    either_source.save(lake.made_from)
    summary = ingest(spark, either, lake, D3)
    assert "can't be read" in summary.unreadable_days[D1]
    assert (D1, 1, 1, 4.0, at(D1)) in events(spark, lake)
    broken.write_bytes(gzip.compress(whole))
    ingest(spark, either, lake, D3)
    assert events(spark, lake) == {
        (D1, 1, 1, 4.0, at(D1)),
        (D1, 3, 1, 1.0, at(D1, 9)),
        (D2, 2, 1, 4.0, at(D2)),
        (D3, 4, 1, 4.0, at(D3)),
    }


def test_a_day_that_was_interrupted_and_is_not_in_the_source_any_more_stays(
    spark: SparkSession, lake: Lake
) -> None:
    settings = config(events={"path": "{landing}/ratings/{run_date}.csv"})
    put_events(lake, f"1,1,4.0,{at(D1)}", f"2,1,4.0,{at(D1)}", name=f"{D1}.csv")
    ingest(spark, settings, lake, D1)
    unfinished = UnfinishedDays(SparkFiles(spark), lake.ratings)
    unfinished.start({D1})
    (Path(lake.landing) / "ratings" / f"{D1}.csv").unlink()
    # A late row comes with the next day's file.
    put_events(lake, f"1,1,4.0,{at(D2)}", f"3,1,4.0,{at(D1)}", name=f"{D2}.csv")
    ingest(spark, settings, lake, D2)
    assert {event[:2] for event in events(spark, lake)} == {(D1, 1), (D1, 2), (D1, 3), (D2, 1)}
    unfinished.start({D1})
    put_events(lake, f"1,1,4.0,{at(D2)}", name=f"{D2}.csv")
    summary = ingest(spark, settings, lake, D2)
    assert "was interrupted" in summary.unreadable_days[D1]
    assert unfinished.days() == set()
    assert {event[:2] for event in events(spark, lake)} == {(D1, 1), (D1, 2), (D1, 3), (D2, 1)}


def test_files_that_are_cut_at_midnight_elsewhere_are_days_of_that_place(
    spark: SparkSession, lake: Lake
) -> None:
    events_there = {"path": "{landing}/ratings/{run_date}.csv", "timestamp_format": "iso8601"}
    hours = [f"1,1,4.0,{D3}T{hour:02}:30:00-08:00" for hour in range(24)]
    put_events(lake, *hours, name=f"{D3}.csv")
    there = config(events=events_there, time_zone="America/Los_Angeles")
    assert ingest(spark, there, lake, D3).accepted_on_run_date == 24
    assert {event[0] for event in events(spark, lake)} == {D3}
    # By the clock of another place, its evening is the next day.
    reset(lake)
    put_items(lake)
    put_events(lake, *hours, name=f"{D3}.csv")
    summary = ingest(spark, config(events=events_there), lake, D3)
    assert summary.quarantined == {Reason.OUTSIDE_DAY: 8}
    details = spark.read.parquet(lake.quarantine).select("detail").collect()
    assert all("(data.time_zone UTC)" in row["detail"] for row in details)


def test_a_day_without_an_accepted_event_writes_nothing(spark: SparkSession, lake: Lake) -> None:
    put_events(lake, f"1,1,4.0,{at(D1)}", f"1,1,9.0,{at(D2)}", f"1,1,,{at(D2)}")
    with pytest.raises(DataError) as error:
        ingest(spark, config(), lake, D2)
    assert str(error.value) == (
        f"no accepted event on {D2} in {lake.landing}/ratings; the newest is of {D1}; "
        "quarantined: 1 rating_missing, 1 rating_out_of_range"
    )
    assert not Path(lake.ratings).exists()
    assert not Path(lake.quarantine).exists()


def test_an_interrupted_day_is_not_taken_for_whole(
    spark: SparkSession, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_events(lake, f"1,1,4.0,{at(D1)}", f"2,1,4.0,{at(D1)}", f"1,1,4.0,{at(D2)}")
    whole = {(D1, 1, 1, 4.0, at(D1)), (D1, 2, 1, 4.0, at(D1)), (D2, 1, 1, 4.0, at(D2))}

    def half(frame, table, *arguments):  # type: ignore[no-untyped-def]
        """Stop as object storage may: one day half there, the other not at all."""
        if table == lake.ratings:
            write_days(frame.where("user_id = 1 and dt < '2024-02-28'"), table, *arguments)
            raise ConnectionError("storage is gone")
        write_days(frame, table, *arguments)

    unfinished = UnfinishedDays(SparkFiles(spark), lake.ratings)
    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(writing, "write_days", half)
        ingest(spark, config(), lake, D2)
    assert held_days(SparkFiles(spark), lake.ratings) == {D1}
    assert unfinished.days() == {D1, D2}

    summary = ingest(spark, config(), lake, D2)
    assert (summary.accepted, summary.earlier_rows) == (3, 0)
    assert events(spark, lake) == whole
    assert unfinished.days() == set()


def test_notes_of_unfinished_days_add_up_until_each_day_is_written(
    spark: SparkSession, lake: Lake
) -> None:
    unfinished = UnfinishedDays(SparkFiles(spark), lake.ratings)
    staging = Path(lake.ratings) / ".writing-1" / "x"
    staging.mkdir(parents=True)
    unfinished.start({D1, D2})
    unfinished.start({D3})
    assert unfinished.days() == {D1, D2, D3}
    unfinished.finish({D3, D1})
    assert unfinished.days() == {D2}
    unfinished.finish({D2})
    assert unfinished.days() == set()
    assert not staging.exists()


def test_a_large_day_gets_several_files_and_a_small_one_its_own(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(days_module, "ROWS_PER_FILE", 100)
    monkeypatch.setattr(days_module, "_ROWS_PER_TASK", 10)
    rows = [(D1, i) for i in range(350)] + [(D2, 1), (D3, 1)]
    frame = spark.createDataFrame(rows, "dt date, user_id long")
    table = str(tmp_path / "table")
    write_days(frame, table, {D1: 350, D2: 1, D3: 1}, ("user_id",))
    assert len(files(table, D1)) in (2, 3, 4)
    assert len(files(table, D2)) == len(files(table, D3)) == 1
    written = spark.read.parquet(table).select("dt", "user_id").collect()
    assert sorted(tuple(row) for row in written) == sorted(rows)


def test_the_catalogue_is_written_whole_and_the_last_row_of_an_item_wins(
    spark: SparkSession, lake: Lake
) -> None:
    put_items(
        lake,
        '1,"American ""President"", The (1995)",Comedy|Drama,1995',
        "2,Old,Drama,1999",
        "x,Bad,Drama,1999",
        ",None,Drama,1999",
        "2,New,,soon",
        "too,short",
        "9007199254740993,Big,(no genres listed),",
    )
    counts = ingest_items(spark, config(), f"{lake.landing}/items", lake.items)
    assert (counts.written, counts.repeated, counts.rejected) == (3, 1, 3)
    rows = {row["item_id"]: tuple(row)[1:] for row in spark.read.parquet(lake.items).collect()}
    assert rows == {
        1: ('American "President", The (1995)', ["Comedy", "Drama"], 1995),
        2: ("New", [], None),
        9007199254740993: ("Big", [], None),
    }
    put_items(lake, "5,Five,Drama,2000")
    ingest_items(spark, config(), f"{lake.landing}/items", lake.items)
    assert [row["item_id"] for row in spark.read.parquet(lake.items).collect()] == [5]
    assert sorted(p.name for p in Path(lake.root).iterdir()) == ["items", "landing"]


def test_of_several_files_the_last_by_name_wins(spark: SparkSession, lake: Lake) -> None:
    header = "item_id,title,genres"
    # The larger file would come first if Spark's own order decided.
    write(Path(lake.landing) / "items" / "items.csv", header, "1,First,Drama")
    many = [f"{i},Later {'x' * 50},Drama" for i in range(1, 200)]
    write(Path(lake.landing) / "items" / "later.csv", header, *many)
    ingest_items(spark, config(), f"{lake.landing}/items", lake.items)
    row = spark.read.parquet(lake.items).where("item_id = 1").collect()[0]
    assert row["title"].startswith("Later")


def test_an_empty_catalogue_is_refused_and_the_old_one_stays(
    spark: SparkSession, lake: Lake
) -> None:
    ingest_items(spark, config(), f"{lake.landing}/items", lake.items)
    put_items(lake, "x,Bad,Drama,1999")
    with pytest.raises(DataError, match="the catalogue is empty: no row with a valid item_id"):
        ingest_items(spark, config(), f"{lake.landing}/items", lake.items)
    assert spark.read.parquet(lake.items).count() == 3


def test_users_keep_their_attributes(spark: SparkSession, lake: Lake, tmp_path: Path) -> None:
    path = write(tmp_path / "users.csv", "id,Age,zip", "1,25,02139", "2,,", "1,26,02139")
    users = {"path": str(path), "columns": {"user_id": "id", "age": "age", "zip": "zip"}}
    counts = ingest_users(spark, config(users=users), str(path), lake.users)
    assert counts is not None
    assert (counts.written, counts.repeated) == (2, 1)
    rows = {tuple(row) for row in spark.read.parquet(lake.users).collect()}
    assert rows == {(1, "26", "02139"), (2, None, None)}


@pytest.fixture
def far_east(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is fourteen hours ahead, for Python and the JVM."""
    zones = spark._jvm.java.util.TimeZone  # type: ignore[union-attr]
    default = zones.getDefault()
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Pacific/Kiritimati")
        time.tzset()
        zones.setDefault(zones.getTimeZone("Pacific/Kiritimati"))
        yield
    zones.setDefault(default)
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_days_are_utc_whatever_the_machine_thinks(spark: SparkSession, lake: Lake) -> None:
    put_events(lake, f"1,1,4.0,{at(D2)}", f"2,1,4.0,{at(D2, 86_399)}", f"3,1,4.0,{at(D3)}")
    summary = ingest(spark, config(), lake, D2)
    assert (summary.accepted_on_run_date, summary.later_rows) == (2, 1)
    assert held_days(SparkFiles(spark), lake.ratings) == {D2}
