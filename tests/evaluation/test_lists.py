"""Measures of lists and of days against a direct computation."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipelines.day_calendar import DayCalendar
from pipelines.errors import DataError
from pipelines.evaluation.data_gates import Volume
from pipelines.evaluation.lists import mean_overlap, measure_lists
from pipelines.evaluation.volume import measure_volume

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LISTS = "id string, value array<bigint>"
DAY = date(2026, 3, 1)


def random_lists(seed: int, users: range) -> dict[str, list[int]]:
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(250)
    return {
        str(u): drawn[rng.choice(40, rng.integers(0, 25), replace=False) ** 2 // 10].tolist()
        for u in users
    }


def distinct(lists: dict[str, list[int]]) -> dict[str, list[int]]:
    return {user: list(dict.fromkeys(items)) for user, items in lists.items()}


@pytest.mark.parametrize("catalogue", [250, 1000])
def test_coverage_and_concentration(spark: SparkSession, catalogue: int) -> None:
    lists = distinct(random_lists(1, range(60)))
    counts = Counter(item for items in lists.values() for item in items)
    top = sum(count for _, count in counts.most_common(math.ceil(catalogue / 100)))
    measured = measure_lists(spark.createDataFrame(list(lists.items()), LISTS), catalogue)
    assert measured.coverage == pytest.approx(len(counts) / catalogue)
    assert measured.top_share == pytest.approx(top / counts.total())


def test_lists_without_items(spark: SparkSession) -> None:
    measured = measure_lists(spark.createDataFrame([("1", [])], LISTS), 10)
    assert measured.coverage == 0
    assert math.isnan(measured.top_share)


def test_overlap_is_over_those_who_are_in_both(spark: SparkSession) -> None:
    lists = distinct(random_lists(1, range(50)))
    live = distinct(random_lists(2, range(20, 70)))
    expected = []
    for user in lists.keys() & live.keys():
        new, old = set(lists[user][:10]), set(live[user][:10])
        expected.append(len(new & old) / len(new | old) if new | old else 1.0)
    frames = [spark.createDataFrame(list(x.items()), LISTS) for x in (lists, live)]
    assert mean_overlap(*frames) == pytest.approx(np.mean(expected))
    assert mean_overlap(frames[0], frames[0]) == 1.0
    # Ids may have changed their type: the same text is the same item.
    as_text = frames[0].withColumn("value", frames[0]["value"].cast("array<string>"))
    assert mean_overlap(as_text, frames[0]) == 1.0
    nobody = spark.createDataFrame([("nobody", [1])], LISTS)
    assert mean_overlap(frames[0], nobody) is None


def test_volume_counts_the_last_complete_days_that_have_events(spark: SparkSession) -> None:
    end = datetime(2026, 3, 2, tzinfo=UTC)
    ages = [0.25, 0.5, 0.75, 1.5, 3.5, 3.6, 40.5, 400.5]
    rows = [(end - timedelta(days=age),) for age in ages]
    events = spark.createDataFrame(rows, "timestamp timestamp")
    utc = DayCalendar()

    def before(*counts: tuple[int, int]) -> dict[date, int]:
        return {DAY - timedelta(days=n): count for n, count in counts}

    measured = measure_volume(events, DAY, 28, utc)
    assert measured == Volume(DAY, 3, before((1, 1), (3, 2), (40, 1), (400, 1)), 0.25)
    assert measure_volume(events, DAY, 2, utc).trailing == before((1, 1), (3, 2))
    # Days that were read too early are no measure, and none is taken of one.
    incomplete = [DAY - timedelta(days=3), DAY]
    measured = measure_volume(events, DAY, 2, utc, incomplete)
    assert measured == Volume(DAY, 3, before((1, 1), (40, 1)), 0.25, complete=False)
    # In Honolulu it is still the day before at the end of it.
    there = measure_volume(events, DAY, 2, DayCalendar("Pacific/Honolulu"))
    assert there.on_run_date == 2
    assert there.age_days == pytest.approx(0.25 + 10 / 24)
    # Nothing on the run date: the newest event is two days old.
    late = measure_volume(events.where("timestamp < timestamp'2026-02-28'"), DAY, 2, utc)
    assert late == Volume(DAY, 0, before((3, 2), (40, 1)), 3.5)
    with pytest.raises(DataError, match="no event on 2026-03-01"):
        measure_volume(events.limit(0), DAY, 2, utc)
