"""Scorers measured in one pass have the metrics of their lists."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F  # noqa: N812

from pipelines.errors import DataError
from pipelines.evaluation.ranking import EVALUATED_LENGTH, NDCG, RECALL
from pipelines.models.embeddings import AsStored
from pipelines.models.exploration import TURN, Exploration
from pipelines.models.measures import Ranking, measure_rankings, measure_scorers
from pipelines.models.topn import Candidates, top_unseen

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ITEMS, USERS = 80, 60
SCHEMA = "id long, seen array<int>, relevant array<int>, vector array<float>"


def _users(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """Some have no vector, some have seen nearly everything."""
    users = []
    for user in range(USERS):
        mixed = rng.permutation(ITEMS).tolist()
        seen = 76 if user % 10 == 0 else int(rng.integers(0, 30))
        vector = None if user % 7 == 0 else rng.normal(size=4).astype(np.float32).tolist()
        relevant = mixed[seen : seen + int(rng.integers(1, 20))]
        users.append((user, mixed[:seen], relevant, vector))
    return users


def directly(lists: DataFrame, users: DataFrame) -> dict[str, float]:
    """Return the metrics of lists, as their definitions have them."""
    listed = {row["id"]: row["items"] for row in lists.collect()}
    ndcg, recall = [], []
    for row in users.select("id", "relevant").collect():
        items, wanted = listed[row["id"]], set(row["relevant"])
        gain = sum(1 / math.log2(i + 2) for i, item in enumerate(items[:10]) if item in wanted)
        ndcg.append(gain / sum(1 / math.log2(i + 2) for i in range(min(10, len(wanted)))))
        recall.append(len(set(items[:50]) & wanted) / len(wanted))
    return {NDCG: float(np.mean(ndcg)), RECALL: float(np.mean(recall))}


def test_agree_with_the_metrics_of_the_lists(spark: SparkSession) -> None:
    rng = np.random.default_rng(11)
    vectors = rng.normal(size=(ITEMS, 4)).astype(np.float32)
    vectors[[3, 70]] = np.nan
    exact = Candidates(pa.array(range(ITEMS)), rng.permutation(ITEMS), vectors)
    frame = spark.createDataFrame(_users(rng), SCHEMA).repartition(3).cache()
    scorers = {
        "exact": exact,
        "popularity": exact.by_popularity(),
        "random": exact.by_popularity(rng.random(ITEMS)),
    }
    measured = measure_scorers(frame, scorers)
    for name, scorer in scorers.items():
        lists = top_unseen(frame, scorer, EVALUATED_LENGTH)
        assert measured[name] == pytest.approx(directly(lists, frame))
    assert measured["exact"] != measured["popularity"] != measured["random"]


def test_vectors_are_rounded_as_they_are_stored(spark: SparkSession) -> None:
    """The third component is below float16's smallest: what is stored knows only the others."""
    items = np.array([[1, 0, 0], [1, 0, 1e-9], [0, 1, 0], [np.nan] * 3], np.float32)
    exact = Candidates(pa.array(["a", "b", "c", "d"]), np.arange(4), items)
    stored = AsStored.of(exact)
    assert stored.ids == exact.ids
    users = pa.RecordBatch.from_pydict(
        {
            "vector": pa.array([[0, 0, 1], None, [2049, 0, 0]], pa.list_(pa.float32())),
            "seen": pa.array([[], [1], []], pa.list_(pa.int32())),
        }
    )
    scores = stored.scores(users)
    assert exact.scores(users)[0, 1] > 0 == scores[0, 1]
    assert scores[1].tolist() == exact.scores(users)[1].tolist() == [0, -1, -2, -3]
    assert scores[2, 0] == 2048


def test_nobody_to_measure_is_refused(spark: SparkSession) -> None:
    candidates = Candidates(pa.array([1]), np.arange(1), np.ones((1, 2), np.float32))
    with pytest.raises(DataError, match="no user of the holdout"):
        measure_scorers(spark.createDataFrame([], SCHEMA), {"exact": candidates})


def test_lists_with_new_items_are_counted_as_they_are(spark: SparkSession) -> None:
    rng = np.random.default_rng(12)
    exact = Candidates(pa.array(range(ITEMS)), rng.permutation(ITEMS), np.ones((ITEMS, 4), "f4"))
    new = Exploration(np.array([7, 31, 50, 7, 31, 50]), (2, 5))
    users = spark.createDataFrame(_users(rng), SCHEMA).withColumn(TURN, F.col("id").cast("int"))
    frame = users.repartition(3).cache()
    rankings = {"plain": Ranking(exact), "new": Ranking(exact, new)}
    measured = measure_rankings(frame, rankings, 60)
    for name, ranking in rankings.items():
        lists = top_unseen(frame, ranking.scorer, 60, ranking.exploration).cache()
        found = measured[name]
        assert found.metrics == pytest.approx(directly(lists, frame))
        items = [item for row in lists.collect() for item in row["items"]]
        assert found.listed.tolist() == np.bincount(items, minlength=ITEMS).tolist()
    assert measured["plain"].metrics != measured["new"].metrics
