from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import EvaluationConfig
from pipelines.day_calendar import DayCalendar
from pipelines.evaluation.holdout import Holdout, mark_holdout, mark_validation

RUN_DATE = date(2024, 3, 10)
#: With `holdout_days=2`: the first second of March 9.
START = int(datetime(2024, 3, 9, tzinfo=UTC).timestamp())

Event = tuple[int, int, float, int]


def frame(spark: SparkSession, events: list[Event]) -> DataFrame:
    rows = spark.createDataFrame(events, "user_id long, item_id long, rating double, t long")
    return rows.withColumn("timestamp", sf.timestamp_seconds("t"))


def marks(
    spark: SparkSession, events: list[Event], **config: Any
) -> tuple[dict[Event, bool | None], Holdout]:
    marked, holdout = mark_holdout(
        frame(spark, events), EvaluationConfig.model_validate(config), RUN_DATE, DayCalendar()
    )
    rows = marked.select("user_id", "item_id", "rating", "t", "is_holdout").collect()
    assert len(rows) == len(events)
    return {tuple(row)[:4]: row["is_holdout"] for row in rows}, holdout


def test_the_last_days_of_users_with_earlier_events(spark: SparkSession) -> None:
    events: dict[Event, bool | None] = {
        (1, 1, 4.0, START - 1): False,
        (1, 2, 4.0, START): True,
        (1, 3, 4.0, START + 2 * 86_400 - 1): True,
        # Only earlier events: all for training.
        (2, 1, 4.0, START - 100): False,
        # No earlier events: neither trained on, since that would show the model the time that
        # it is evaluated on, nor evaluated.
        (3, 1, 4.0, START): None,
        (3, 2, 4.0, START + 5): None,
    }
    found, holdout = marks(spark, list(events), holdout_days=2, min_holdout_users=1)
    assert found == events
    assert holdout == Holdout("last_days", days=2)


def test_with_too_few_users_the_last_part_of_each_user(spark: SparkSession) -> None:
    events: list[Event] = [(1, i, 4.0, START + i) for i in range(10)]
    events += [(2, 1, 4.0, START), (3, 1, 4.0, START - 9), (3, 2, 4.0, START)]
    config = {"holdout_days": 2, "min_holdout_users": 2, "holdout_fraction": 0.25}
    found, holdout = marks(spark, events, **config)
    # A quarter of ten is two; a single event stays; of two events the later one is held out.
    expected = {(1, 8, 4.0, START + 8), (1, 9, 4.0, START + 9), (3, 2, 4.0, START)}
    assert {event for event, is_holdout in found.items() if is_holdout} == expected
    assert None not in found.values()
    assert holdout == Holdout("last_fraction", fraction=0.25)


@pytest.mark.parametrize("partitions", [1, 3])
def test_events_of_the_same_moment_are_told_apart_the_same_way_always(
    spark: SparkSession, partitions: int
) -> None:
    events: list[Event] = [(1, i % 3, float(i), START) for i in range(6)]
    shuffled = frame(spark, events[::-1] if partitions == 3 else events).repartition(partitions)
    config = EvaluationConfig(min_holdout_users=9, holdout_fraction=0.5)
    marked, _ = mark_holdout(shuffled, config, RUN_DATE, DayCalendar())
    held = marked.where("is_holdout").select("item_id", "rating").collect()
    assert {tuple(row) for row in held} == {(2, 5.0), (2, 2.0), (1, 4.0)}


def validation(spark: SparkSession, events: list[Event], **config: Any) -> set[Event]:
    marked, holdout = mark_holdout(
        frame(spark, events), EvaluationConfig.model_validate(config), RUN_DATE, DayCalendar()
    )
    rows = (
        mark_validation(marked, holdout, RUN_DATE, DayCalendar()).where("is_validation").collect()
    )
    assert not any(row["is_holdout"] for row in rows)
    return {(row["user_id"], row["item_id"], row["rating"], row["t"]) for row in rows}


def test_validation_is_cut_from_what_is_left_as_the_holdout_was(spark: SparkSession) -> None:
    days = [(1, i, 4.0, START + (i - 5) * 43_200) for i in range(8)]
    found = validation(spark, days, holdout_days=2, min_holdout_users=1)
    # The two days before the two of the holdout.
    assert found == set(days[1:5])

    events: list[Event] = [(1, i, 4.0, START + i) for i in range(10)]
    events += [(2, 1, 4.0, START), (3, 1, 4.0, START - 9), (3, 2, 4.0, START)]
    config = {"holdout_days": 2, "min_holdout_users": 2, "holdout_fraction": 0.25}
    # Eight of ten are left, and a quarter of them is two; the last event of all is not taken.
    assert validation(spark, events, **config) == {events[6], events[7]}
