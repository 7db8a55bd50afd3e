"""Top-N: against a direct computation, for heavy users, and for users and items without vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml.recommendation import ALS

from pipelines.models.interactions import number_ids
from pipelines.models.topn import Candidates, best, top_unseen

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

ITEMS, DIMENSION = 60, 4
SCHEMA = "id string, vector array<float>, seen array<int>"


@pytest.fixture
def candidates() -> Candidates:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(ITEMS, DIMENSION)).astype(np.float32)
    vectors[[5, 50]] = np.nan
    return Candidates(pa.array([f"i{n}" for n in range(ITEMS)]), rng.permutation(ITEMS), vectors)


def lists(
    spark: SparkSession, candidates: Candidates, users: list[Any], size: int
) -> dict[str, Any]:
    rows = top_unseen(spark.createDataFrame(users, SCHEMA), candidates, size).collect()
    assert all([f"i{n}" for n in row["items"]] == row["value"] for row in rows)
    return {row["id"]: row["items"] for row in rows}


def directly(candidates: Candidates, vector: NDArray[np.float32], seen: list[int]) -> list[int]:
    with_vector = [i for i in range(ITEMS) if not np.isnan(candidates.vectors[i, 0])]
    others = [i for i in range(ITEMS) if i not in with_vector]
    best = sorted(with_vector, key=lambda i: -float(candidates.vectors[i] @ vector))
    best += sorted(others, key=lambda i: int(candidates.places[i]))
    return [i for i in best if i not in seen]


def test_agrees_with_a_direct_computation(spark: SparkSession, candidates: Candidates) -> None:
    rng = np.random.default_rng(4)
    users = [
        (f"u{n}", rng.normal(size=DIMENSION).astype(np.float32).tolist(), list(range(n, n + 9)))
        for n in range(30)
    ]
    answers = lists(spark, candidates, users, 10)
    for user, vector, seen in users:
        assert answers[user] == directly(candidates, np.array(vector, np.float32), seen)[:10]


def test_agrees_with_sparks_own_lists_of_the_same_factors(spark: SparkSession) -> None:
    rng = np.random.default_rng(8)
    liked = sorted({(int(u), int(i)) for u, i in rng.integers(0, [30, ITEMS], (400, 2))})
    events = spark.createDataFrame(
        [(u, i, 1.0) for u, i in liked], "user int, item int, rating float"
    )
    model = ALS(
        rank=DIMENSION, maxIter=3, implicitPrefs=True, userCol="user", itemCol="item", seed=1
    ).fit(events)
    expected = {
        row["user"]: [r["item"] for r in row["recommendations"]]
        for row in model.recommendForAllUsers(10).collect()
    }

    factors = model.itemFactors.selectExpr(
        "bigint(id) as id", "0 as popularity", "features as vector"
    )
    items = factors.join(number_ids(factors, "id", "item"), "id")
    users = model.userFactors.selectExpr(
        "bigint(id) as id", "features as vector", "cast(array() as array<int>) as seen"
    )
    rows = top_unseen(users, Candidates.collect(items, "id"), 10).collect()
    assert {row["id"]: row["value"] for row in rows} == expected
    assert len(expected) == 30


def test_equal_scores_go_by_item_number() -> None:
    scores = np.array([[1, 3, 2, 2, 2, 3], [0, 0, 0, 0, 0, 0]], np.float32)
    assert best(scores, 4).tolist() == [[1, 5, 2, 3], [0, 1, 2, 3]]
    assert best(scores, 9).tolist() == [[1, 5, 2, 3, 4, 0], [0, 1, 2, 3, 4, 5]]
    assert best(scores, 0).shape == (2, 0)


def test_a_user_who_has_seen_nearly_everything_gets_all_the_rest(
    spark: SparkSession, candidates: Candidates
) -> None:
    vector = [1.0, 0.0, 0.0, 0.0]
    users = [("heavy", vector, list(range(57))), ("all", vector, list(range(ITEMS)))]
    answers = lists(spark, candidates, users, 10)
    assert answers["heavy"] == directly(candidates, np.array(vector, np.float32), list(range(57)))
    assert len(answers["heavy"]) == 3
    assert answers["all"] == []


def test_users_without_a_vector_get_the_other_order(
    spark: SparkSession, candidates: Candidates
) -> None:
    by_place = np.argsort(candidates.places).tolist()
    users = [("cold", None, [by_place[0]]), ("warm", [0.0, 1.0, 0.0, 0.0], [])]
    assert lists(spark, candidates, users, 5)["cold"] == by_place[1:6]
    assert lists(spark, candidates, users[:1], 5)["cold"] == by_place[1:6]
    assert lists(spark, candidates.by_popularity(), users, 5)["warm"] == by_place[:5]
    popularity = np.arange(ITEMS, dtype=float)
    assert lists(spark, candidates.by_popularity(popularity), users, 2)["warm"] == [59, 58]
