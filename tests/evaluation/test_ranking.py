"""Ranking metrics against a direct computation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import DataError
from pipelines.evaluation.ranking import (
    exposure_metrics,
    holdout_users,
    ndcg_at_10,
    relevance,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_ndcg_agrees_with_a_direct_computation() -> None:
    rng = np.random.default_rng(5)
    lists = [rng.permutation(200)[:25].tolist() for _ in range(40)]
    wanted = [rng.permutation(200)[: rng.integers(1, 30)].tolist() for _ in range(40)]
    matrix = relevance(pa.array(wanted, pa.list_(pa.int32())), 200)
    hits = np.take_along_axis(matrix, np.array(lists), axis=1)
    expected = []
    for items, relevant in zip(lists, wanted, strict=True):
        gain = sum(1 / math.log2(i + 2) for i, item in enumerate(items[:10]) if item in relevant)
        expected.append(gain / sum(1 / math.log2(i + 2) for i in range(min(10, len(relevant)))))
    counts = np.array([len(relevant) for relevant in wanted])
    assert ndcg_at_10(hits, counts) == pytest.approx(expected)
    # A list may be shorter than ten.
    short = ndcg_at_10(hits[:, :3], counts)
    assert (short <= ndcg_at_10(hits, counts)).all()
    assert short.max() > 0


def test_exposure_agrees_with_a_direct_computation() -> None:
    rng = np.random.default_rng(6)
    catalogue, users = 250, 90
    liked = {item: int(rng.integers(0, users)) for item in range(catalogue) if item % 3}
    lists = {u: (rng.permutation(60) * 4 % catalogue)[: 1 + u % 20].tolist() for u in range(40)}
    places = [item for items in lists.values() for item in items]
    counts = sorted((places.count(item) for item in set(places)), reverse=True)
    measured = exposure_metrics(
        np.bincount(places, minlength=catalogue),
        np.array([liked.get(item, 0) for item in range(catalogue)]),
        users,
    )
    surprise = [-math.log2((liked.get(item, 0) + 1) / (users + 1)) for item in places]
    assert measured == {
        "coverage": len(counts) / catalogue,
        "top_share": sum(counts[:3]) / len(places),
        "novelty": pytest.approx(float(np.mean(surprise))),
    }


def test_lists_without_an_item_are_refused() -> None:
    with pytest.raises(DataError, match="lists to evaluate are all empty"):
        exposure_metrics(np.zeros(3, np.int64), np.ones(3, np.int64), 4)


def test_what_was_seen_in_training_is_not_relevant(spark: SparkSession) -> None:
    schema = "user_id int, item int, is_positive boolean"
    training = spark.createDataFrame([(1, 10, True), (1, 11, False), (2, 10, True)], schema)
    holdout = spark.createDataFrame(
        [(1, 11, True), (1, 12, True), (1, 13, False), (2, 10, True), (3, 10, True)], schema
    )
    rows = {row["id"]: row for row in holdout_users(training, holdout).collect()}
    assert set(rows) == {1, 3}
    assert (sorted(rows[1]["seen"]), rows[1]["relevant"]) == ([10, 11], [12])
    assert (rows[3]["seen"], rows[3]["relevant"]) == ([], [10])
