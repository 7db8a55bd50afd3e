"""Metrics of ranked lists, on what users did in the holdout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from pyspark.ml.evaluation import RankingEvaluator
from pyspark.sql import functions as sf

from pipelines.errors import DataError
from pipelines.evaluation.lists import TOP
from pipelines.evaluation.scores import require_finite
from pipelines.models.interactions import seen_items

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

NDCG = "ndcg_at_10"
RECALL = "recall_at_50"
COVERAGE, TOP_SHARE, NOVELTY = "coverage", "top_share", "novelty"
#: Lists must be at least this long to be evaluated.
EVALUATED_LENGTH = 50
_SPARK_METRICS: dict[str, tuple[Literal["ndcgAtK", "recallAtK"], int]] = {
    NDCG: ("ndcgAtK", 10),
    RECALL: ("recallAtK", EVALUATED_LENGTH),
}


def holdout_users(training: DataFrame, holdout: DataFrame) -> DataFrame:
    """Return ``id``, ``seen`` and ``relevant`` of every user with something to find.

    Both inputs have user_id, item and is_positive. Seen are the user's items in training, relevant
    the positive ones of the holdout that are not among them (both array<int> of item numbers).
    """
    relevant = (
        holdout.where("is_positive")
        .groupBy(sf.col("user_id").alias("id"))
        .agg(sf.collect_list("item").alias("relevant"))
    )
    return (
        relevant.join(seen_items(training), "id", "left")
        .withColumn("seen", sf.coalesce("seen", sf.array().cast("array<int>")))
        .withColumn("relevant", sf.array_except("relevant", "seen"))
        .where(sf.size("relevant") > 0)
    )


def ranking_metrics(lists: DataFrame, relevant: DataFrame) -> dict[str, float]:
    """Return the means of NDCG@10 and recall@50 over the users of `relevant`.

    `lists` has ``id`` and ``items`` (array<int>, best first), `relevant` ``id`` and ``relevant``
    (array<int>, not empty). Relevance is binary; the ideal ranking has min(10, relevant) hits, and
    recall is divided by all relevant items. A user without a list counts 0.

    Raises:
        DataError: `relevant` is empty, or a metric is not finite.
    """
    pairs = relevant.join(lists, "id", "left").select(
        sf.coalesce("items", sf.array().cast("array<int>")).cast("array<double>").alias("items"),
        sf.col("relevant").cast("array<double>").alias("relevant"),
    )
    pairs = pairs.cache()
    try:
        if pairs.isEmpty():
            raise DataError("no user of the holdout has a positive item that is new to them")
        metrics = {
            name: RankingEvaluator(
                predictionCol="items", labelCol="relevant", metricName=metric, k=k
            ).evaluate(pairs)
            for name, (metric, k) in _SPARK_METRICS.items()
        }
    finally:
        pairs.unpersist()
    # Spark adds up in the order in which tasks end: rounding hides what that does to the last bit.
    return require_finite({name: round(value, 12) for name, value in metrics.items()})


def exposure_metrics(
    listed: NDArray[np.int64], popularity: NDArray[np.int64], users: int
) -> dict[str, float]:
    """Return what of the catalogue the lists show: coverage, top_share and novelty.

    Coverage is the share of the catalogue that is in at least one list; top_share that of all
    places which the most listed 1% of the catalogue takes, as :func:`measure_lists` has it.
    Novelty is the mean self-information of the places, -log2 of the share of users who liked the
    item (Zhou et al. 2010); one like is added to each item and user, so that it is finite.

    Args:
        listed: in how many lists each item of the catalogue is [n].
        popularity: how many of the `users` liked each of them [n].
        users: number of users whose likes are counted.

    Raises:
        DataError: there is no list with an item.
    """
    places = int(listed.sum())
    if not places:
        raise DataError("the lists to evaluate are all empty")
    top = np.sort(listed)[::-1][: math.ceil(TOP * len(listed))]
    surprise = -np.log2((popularity + 1) / (users + 1))
    return {
        COVERAGE: int((listed > 0).sum()) / len(listed),
        TOP_SHARE: int(top.sum()) / places,
        NOVELTY: round(math.fsum(surprise * listed) / places, 9),
    }
