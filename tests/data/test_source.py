"""Reading sources and values: what each format gives, and what is said when it can't be read."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import EventSource
from pipelines.data.contract import Reason
from pipelines.data.source import FILE, IS_MALFORMED, RAW, read_source
from pipelines.data.validate import validate
from pipelines.errors import DataError
from tests.data.landing import D1, D4, HEADER, at, config, write

COLUMNS = ("user_id", "item_id", "rating", "timestamp")


def placed(rows: DataFrame) -> DataFrame:
    """Rows as if they stood in a file."""
    file = "struct<path: string, size: bigint, modified: timestamp>"
    return rows.withColumn(FILE, sf.lit(None).cast(file))


def read(spark: SparkSession, path: Path, **source: Any) -> list[Row]:
    settings = EventSource.model_validate({"path": str(path), **source})
    return read_source(spark, settings, str(path), COLUMNS).orderBy(RAW).collect()


def values(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in COLUMNS) for row in rows]


def test_csv_with_quotes_blank_lines_and_rows_of_another_width(
    spark: SparkSession, tmp_path: Path
) -> None:
    path = write(
        tmp_path / "a.csv",
        HEADER,
        'a,"x, ""y""",4.0,1',
        "",
        "   ",
        "b,2,4.0",
        "c,2,4.0,1,9",
        'd,"open,4.0,1',
        'e,back\\slash,"",1',
    )
    rows = read(spark, path)
    assert [(row[RAW], row[IS_MALFORMED]) for row in rows] == [
        ('a,"x, ""y""",4.0,1', False),
        ("b,2,4.0", True),
        ("c,2,4.0,1,9", True),
        ('d,"open,4.0,1', True),
        ("e,back\\slash,,1", False),
    ]
    assert values(rows)[0] == ("a", 'x, "y"', "4.0", "1")
    assert values(rows)[4] == ("e", "back\\slash", None, "1")


def test_headers_are_matched_by_name_in_any_case_and_order(
    spark: SparkSession, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.csv", ";When;MovieID; score;userid", "x;5;10;4.5;7")
    mapping = {"user_id": "userId", "item_id": "movieId", "rating": "score", "timestamp": "when"}
    assert values(read(spark, path, delimiter=";", columns=mapping)) == [("7", "10", "4.5", "5")]


def test_csv_without_a_header_is_read_by_position(spark: SparkSession, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "5\t4.5\t10\t7", "6\t1.0\t11\t8")
    positions = {"timestamp": 0, "rating": 1, "item_id": 2, "user_id": 3}
    rows = read(spark, path, delimiter="\t", header=False, columns=positions)
    assert values(rows) == [("7", "10", "4.5", "5"), ("8", "11", "1.0", "6")]


def test_every_file_of_a_folder_loses_its_own_header_packed_or_not(
    spark: SparkSession, tmp_path: Path
) -> None:
    write(tmp_path / "in" / "a.csv", HEADER, "1,1,4,1")
    write(tmp_path / "in" / "b.csv", HEADER.upper(), "2,1,4,1", HEADER)
    write(tmp_path / "in" / "empty.csv")
    with gzip.open(tmp_path / "in" / "c.csv.gz", "wt", encoding="utf-8") as file:
        file.write(f"\ufeff{HEADER}\n3,1,4,1\n")
    # A header in the middle of a file is a row like any other.
    expected = ["1", "2", "3", "user_id"]
    assert [row["user_id"] for row in read(spark, tmp_path / "in")] == expected


def test_json_lines(spark: SparkSession, tmp_path: Path) -> None:
    lines = [
        '{"user": 12345678901234567, "item_id": "10", "rating": 4, "timestamp": 5}',
        '{"user": "8", "item_id": 11, "rating": null}',
        "[1]",
        "oops",
    ]
    path = write(tmp_path / "a.jsonl", *lines, "")
    rows = read(spark, path, format="jsonl", columns={"user_id": "USER"})
    assert [(row[RAW], row[IS_MALFORMED]) for row in rows] == sorted(
        (line, not line.startswith("{")) for line in lines
    )
    of_line = {row[RAW]: row for row in rows}
    assert values([of_line[lines[0]]]) == [("12345678901234567", "10", "4", "5")]
    assert values([of_line[lines[1]]]) == [("8", "11", None, None)]


def test_parquet_keeps_its_types_through_validation(spark: SparkSession, tmp_path: Path) -> None:
    time = pd.Timestamp("2024-03-01 12:00:00.25", tz="UTC")
    frame = pd.DataFrame(
        {
            # As pandas has it: ids with one missing are floating-point.
            "user_id": [7.0, None, 2.5],
            "item_id": [10, 11, 12],
            "rating": [4.5, 1.0, 1.0],
            "timestamp": [time, time, time],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet", coerce_timestamps="us")
    settings = config(events={"path": str(tmp_path), "format": "parquet"})
    rows = read_source(spark, settings.events, str(tmp_path), COLUMNS)
    found = validate(rows, settings, D4).orderBy("item_id").collect()
    assert [(row["user_id"], row["reason"]) for row in found] == [
        (7, None),
        (None, Reason.USER_ID_MISSING),
        (None, Reason.USER_ID_INVALID),
    ]
    assert spark_utc(found[0]["timestamp"]) == datetime(2024, 3, 1, 12, 0, 0, 250_000)
    assert found[1]["raw"] == ('{"item_id":11,"rating":1.0,"timestamp":"2024-03-01T12:00:00.250Z"}')


def test_nanoseconds_are_refused_with_the_reason(spark: SparkSession, tmp_path: Path) -> None:
    pd.DataFrame({"timestamp": [pd.Timestamp("2024-03-01")]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"read it as Parquet: .*NANOS") as error:
        read(spark, tmp_path, format="parquet")
    assert "\n" not in str(error.value)


def spark_utc(value: datetime) -> datetime:
    """A collected timestamp (naive, in the machine's time zone) as naive UTC."""
    return value.astimezone(UTC).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("user_id", "", Reason.USER_ID_MISSING),
        ("user_id", "  ", Reason.USER_ID_MISSING),
        ("user_id", "abc", Reason.USER_ID_INVALID),
        ("user_id", "1.5", Reason.USER_ID_INVALID),
        ("user_id", "9223372036854775807", None),
        ("user_id", "9223372036854775808", Reason.USER_ID_INVALID),
        ("user_id", "-5", None),
        ("item_id", "", Reason.ITEM_ID_MISSING),
        ("item_id", "1e3", Reason.ITEM_ID_INVALID),
        ("rating", "", Reason.RATING_MISSING),
        ("rating", "good", Reason.RATING_INVALID),
        ("rating", "4d", Reason.RATING_INVALID),
        ("rating", "0x1p1", Reason.RATING_INVALID),
        ("rating", "NaN", Reason.RATING_NOT_FINITE),
        ("rating", "-Infinity", Reason.RATING_NOT_FINITE),
        ("rating", "1e999", Reason.RATING_NOT_FINITE),
        ("rating", "0.4", Reason.RATING_OUT_OF_RANGE),
        ("rating", "5.01", Reason.RATING_OUT_OF_RANGE),
        ("rating", " 5e0 ", None),
        ("timestamp", "", Reason.TIMESTAMP_MISSING),
        ("timestamp", "2024-03-01", Reason.TIMESTAMP_INVALID),
        ("timestamp", "0", Reason.TIMESTAMP_OUT_OF_RANGE),
        ("timestamp", "1709251200000", Reason.TIMESTAMP_OUT_OF_RANGE),
        ("timestamp", "1e300", Reason.TIMESTAMP_OUT_OF_RANGE),
        ("timestamp", "nan", Reason.TIMESTAMP_OUT_OF_RANGE),
        ("timestamp", "1709251200.5", None),
    ],
)
def test_rules(
    verdicts: dict[tuple[str, str], Row], column: str, text: str, reason: Reason | None
) -> None:
    verdict = verdicts[column, text]
    assert verdict["reason"] == reason
    if reason and not reason.endswith("missing"):
        assert verdict["detail"].startswith(f"{column} '{text}' is not ")
    assert (verdict["raw"] is None) == (reason is None)


@pytest.fixture(scope="module")
def verdicts(spark: SparkSession) -> dict[tuple[str, str], Row]:
    """The verdict on each case of :func:`test_rules`, from one Spark job."""
    mark = next(m for m in test_rules.pytestmark if m.name == "parametrize")  # type: ignore[attr-defined]
    good = {"user_id": "1", "item_id": "2", "rating": "3", "timestamp": str(at(D4))}
    cases = [(column, text) for column, text, _ in mark.args[1]]
    rows = [(*(good | {c: t}).values(), f"{c}|{t}", False) for c, t in cases]
    # The key travels in a column that validation hands through only with a problem: by order.
    frame = placed(spark.createDataFrame(rows, [*COLUMNS, RAW, IS_MALFORMED]).coalesce(1))
    found = validate(frame, config(), D4).collect()
    return dict(zip(cases, found, strict=True))


def test_timestamps_in_every_format_are_utc(spark: SparkSession) -> None:
    def read_one(kind: str, text: str) -> datetime | None:
        settings = config(events={"timestamp_format": kind})
        rows = [("1", "2", "3", text, "", False)]
        frame = placed(spark.createDataFrame(rows, [*COLUMNS, RAW, IS_MALFORMED]))
        row = validate(frame, settings, D1).collect()[0]
        assert row["dt"] == (D4 if row["timestamp"] else D1)
        return spark_utc(row["timestamp"]) if row["timestamp"] else None

    noon = datetime(2024, 3, 1, 12, 30)
    assert read_one("epoch_millis", "1709296200250") == noon.replace(microsecond=250_000)
    assert read_one("iso8601", "2024-03-01T12:30:00Z") == noon
    assert read_one("iso8601", "2024-03-01 14:30:00+02:00") == noon
    assert read_one("iso8601", "2024-03-01T12:30") == noon
    assert read_one("iso8601", "12:30") is None
    assert read_one("iso8601", "2024-02-30") is None


def test_string_ids_are_kept_as_they_are(spark: SparkSession) -> None:
    rows = [(" ü1", "007", "3", str(at(D4)), "", False)]
    frame = placed(spark.createDataFrame(rows, [*COLUMNS, RAW, IS_MALFORMED]))
    settings = config(user_id_type="string", item_id_type="string")
    found = validate(frame, settings, D4).select("user_id", "item_id").collect()
    assert [tuple(row) for row in found] == [(" ü1", "007")]


def test_nothing_to_read_is_said_with_the_path(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file or folder"):
        read(spark, tmp_path / "nowhere.csv")
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="in: no data: no files in it"):
        read(spark, tmp_path / "in")
    write(tmp_path / "in" / "a.csv")
    for kind in ("csv", "jsonl"):
        with pytest.raises(DataError, match="in: no data: all files are empty"):
            read(spark, tmp_path / "in", format=kind)
    with pytest.raises(DataError, match=r"in: Spark can't read it as Parquet: .*footer"):
        read(spark, tmp_path / "in", format="parquet")


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ({}, "user_id,item_id,stars,timestamp", "no column 'rating' for rating; the columns are"),
        ({"columns": {"rating": "score"}}, HEADER, "no column 'score' for rating"),
        ({"format": "jsonl"}, '{"user_id": 1}', "no column 'item_id' for item_id"),
        (
            {"header": False, "columns": {"user_id": 0, "item_id": 1, "rating": 2, "timestamp": 3}},
            "1,2,3",
            "no column 3 for timestamp; without a header, positions are: 0, 1, 2",
        ),
    ],
)
def test_a_missing_column_is_named_with_what_is_there(
    spark: SparkSession, tmp_path: Path, source: dict[str, Any], line: str, message: str
) -> None:
    path = write(tmp_path / "a", line)
    with pytest.raises(DataError, match=message):
        read(spark, path, **source)


def test_files_with_different_headers_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", HEADER, "1,2,3,4")
    write(tmp_path / "b.csv", "item_id,user_id,rating,timestamp", "1,2,3,4")
    with pytest.raises(DataError, match=r"different headers: .*a\.csv has .*b\.csv has item_id"):
        read(spark, tmp_path)


def test_genres_come_as_text_list_or_json(spark: SparkSession) -> None:
    from pipelines.data.values import as_genres

    text = spark.createDataFrame(
        [("Drama| War |Drama||",), ("(no genres listed)",), (None,), ('["A", "B|C"]',)], "g string"
    )
    listed = spark.createDataFrame([(["A", "", "A", "B"],)], "g array<string>")
    found = [
        row[0]
        for frame in (text, listed)
        for row in frame.select(as_genres(sf.col("g"), frame.schema["g"].dataType, "|")).collect()
    ]
    assert found == [["Drama", "War"], [], [], ["A", "B|C"], ["A", "B"]]
