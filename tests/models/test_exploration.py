"""Exploration: the right items are new, and everybody gets some of them, each as often."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.models.exploration import Exploration, new_items, turn
from pipelines.models_config import ExplorationConfig

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAY = date(2026, 3, 1)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def plan(day: date = DAY, size: int = 30, **config: Any) -> Exploration | None:
    section = ExplorationConfig.model_validate(config)
    return Exploration.plan(np.arange(100, 120), section, size, day, seed=1)


def test_new_is_what_few_know_and_only_lately_or_nobody(spark: SparkSession) -> None:
    rows = [(u, 0, NOW - timedelta(days=1)) for u in range(3)]  # Already known.
    rows += [(u, 1, NOW - timedelta(days=u)) for u in range(2)]
    rows += [(1, 2, NOW - timedelta(days=40)), (2, 2, NOW)]  # Not new, just disregarded.
    pairs = spark.createDataFrame(rows, "user_id int, item int, first_at timestamp")
    catalogue = spark.createDataFrame([(n,) for n in range(4)], "item int")
    config = ExplorationConfig(max_users=2, days=30)
    assert sorted(r["item"] for r in new_items(pairs, catalogue, config).collect()) == [1, 3]


def test_places_are_spread_behind_the_first_ones() -> None:
    planned = plan(share=0.1)
    assert planned is not None
    assert planned.places == (10, 16, 23)
    line = planned.insert(np.arange(30), np.array([100, 101, 102]), 30)
    assert line.tolist() == [
        *range(10),
        100,
        *range(10, 15),
        101,
        *range(15, 21),
        102,
        *range(21, 27),
    ]
    assert planned.insert(np.arange(4), np.array([100]), 30).tolist() == [0, 1, 2, 3, 100]
    assert plan(share=0) is None
    assert plan(size=10) is None
    assert Exploration.plan(np.arange(0), ExplorationConfig(), 50, DAY, 1) is None


def test_each_new_item_is_shown_alike_and_nothing_that_was_seen() -> None:
    planned = plan(share=0.1)
    assert planned is not None
    scores = np.zeros((20, 130), np.float32)
    drawn = planned.draw(pa.array(range(20), pa.int32()), scores)
    assert {len(set(items.tolist())) for items in drawn} == {3}
    counts = Counter(item for items in drawn for item in items.tolist())
    assert counts == dict.fromkeys(range(100, 120), 3)

    scores[:, 100:119] = -np.inf
    drawn = planned.draw(pa.array(range(20), pa.int32()), scores)
    assert [items.tolist() for items in drawn] == [[119]] * 20


def test_the_order_is_that_of_the_run_date() -> None:
    first, again, next_day = (plan(day) for day in (DAY, DAY, DAY + timedelta(days=1)))
    assert first and again and next_day
    assert first.items.tolist() == again.items.tolist() != next_day.items.tolist()


@pytest.mark.parametrize("ids", [[1, 2, 3], ["1", "2", "3"]])
def test_a_users_turn_depends_on_user_and_day(spark: SparkSession, ids: list[Any]) -> None:
    users = spark.createDataFrame([(i,) for i in ids], ["id"])

    def turns(day: date) -> list[int]:
        return [row["turn"] for row in users.select(turn(day, 1)).collect()]

    assert len({*turns(DAY), *turns(DAY + timedelta(days=1))}) == 6
    assert turns(DAY) == turns(DAY)
