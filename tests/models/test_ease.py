"""EASE: Gram matrix and weights against a direct computation, and what it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.models import ease
from pipelines.models.ease import co_occurrences, fit_ease
from pipelines.models_config import EaseConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

USERS, ITEMS = 50, 30
PAIRS = "user_id bigint, item int, is_positive boolean"


def matrix() -> NDArray[np.float64]:
    chance = np.random.default_rng(2).random((USERS, ITEMS))
    return (chance < np.linspace(0.05, 0.6, ITEMS)).astype(float)


def frames(spark: SparkSession, liked: NDArray[np.float64]) -> tuple[DataFrame, DataFrame]:
    """Pairs, half of them negative, and a catalogue with three items that nobody has rated."""
    rows = [(10**12 * u, i, bool(liked[u, i])) for u in range(len(liked)) for i in range(ITEMS)]
    catalogue = [(f"i{n:02}", n) for n in range(ITEMS + 3)]
    return (
        spark.createDataFrame(rows, PAIRS),
        spark.createDataFrame(catalogue, "item_id string, item int"),
    )


def fit(spark: SparkSession, liked: NDArray[np.float64], **config: Any) -> dict[str, Any]:
    rows = fit_ease(*frames(spark, liked), EaseConfig.model_validate(config)).to_pylist()
    return {row["item_id"]: dict(zip(row["others"], row["weights"], strict=True)) for row in rows}


def test_weights_agree_with_the_closed_form(spark: SparkSession) -> None:
    liked = matrix()
    weights = fit(spark, liked, regularization=5, min_users=1, kept=ITEMS)
    inverse = np.linalg.inv(liked.T @ liked + 5 * np.eye(ITEMS))
    for i, row in enumerate(-inverse / np.diag(inverse)):
        expected = {f"i{j:02}": weight for j, weight in enumerate(row) if j != i}
        assert weights[f"i{i:02}"] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_only_the_largest_weights_of_the_most_popular_items_are_kept(spark: SparkSession) -> None:
    liked = matrix()
    whole = fit(spark, liked, regularization=5, min_users=1, max_items=12, kept=ITEMS)
    popular = np.argsort(-liked.sum(axis=0), kind="stable")[:12]
    assert list(whole) == [f"i{i:02}" for i in sorted(popular)]
    few = fit(spark, liked, regularization=5, min_users=1, max_items=12, kept=4)
    for item, row in few.items():
        largest = sorted(whole[item].items(), key=lambda entry: -abs(entry[1]))[:4]
        assert list(row.items()) == largest
    counts = liked.sum(axis=0)
    common = fit(spark, liked, min_users=10)
    assert set(common) == {f"i{i:02}" for i in range(ITEMS) if counts[i] >= 10}


def test_co_occurrences_are_exact_however_they_are_cut(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    liked = matrix()
    lists = [([int(i) for i in np.flatnonzero(row)],) for row in liked]
    users = spark.createDataFrame(lists, "rows array<int>").repartition(3)
    for counts in (8_000_000, 4 * ITEMS):
        monkeypatch.setattr(ease, "_COUNTS_PER_BLOCK", counts)
        rows = dict(co_occurrences(users, ITEMS))
        assert np.array_equal([rows[i] for i in range(ITEMS)], liked.T @ liked)


def test_nothing_popular_enough_is_an_empty_model(spark: SparkSession) -> None:
    assert fit(spark, matrix(), min_users=USERS + 1) == {}


def test_too_little_memory_is_told_in_one_line(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(ease, "_gram", no_memory)
    with pytest.raises(DataError, match=r"needs 0.0 GB .* lower models.recs.ease.max_items$"):
        fit(spark, matrix())
