"""Popular lists: what is liked lately, overall and in each genre."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pipelines.models.popularity import popular_lists, popularity

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ITEMS = [
    ("old hit", 0, ["Drama", "Drama"]),
    ("new hit", 1, ["Drama", "Comedy"]),
    ("disliked", 2, ["Comedy"]),
    ("unseen", 3, None),
]


def pairs(spark: SparkSession) -> DataFrame:
    rows: list[Any] = [(u, 0, True, NOW - timedelta(days=100)) for u in range(5)]
    rows += [(u, 1, True, NOW) for u in range(2)]
    rows += [(u, 2, False, None) for u in range(9)]
    return spark.createDataFrame(
        rows, "user_id int, item int, is_positive boolean, liked_at timestamp"
    )


def lists(spark: SparkSession, half_life: float | None, size: int) -> dict[str, list[str]]:
    items = spark.createDataFrame(ITEMS, "item_id string, item int, genres array<string>")
    rows = popular_lists(pairs(spark), items, half_life, size).collect()
    return {row["id"]: row["value"] for row in rows}


def test_likes_fade_and_genres_have_lists_of_their_own(spark: SparkSession) -> None:
    assert lists(spark, None, 3) == {
        "all": ["old hit", "new hit", "disliked"],
        "genre:Drama": ["old hit", "new hit"],
        "genre:Comedy": ["new hit", "disliked"],
    }
    # After two half-lives five likes are worth 1.25.
    assert lists(spark, 50, 2)["all"] == ["new hit", "old hit"]
    assert lists(spark, 50, 2)["genre:Drama"] == ["new hit", "old hit"]


def test_the_baseline_counts_users(spark: SparkSession) -> None:
    catalogue = spark.createDataFrame([(n,) for n in range(4)], "item int")
    rows = popularity(pairs(spark), catalogue).collect()
    assert {row["item"]: row["popularity"] for row in rows} == {0: 5, 1: 2, 2: 0, 3: 0}
