"""Metrics of ranked lists, on what users did in the holdout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as sf

from pipelines.errors import DataError
from pipelines.evaluation.lists import TOP
from pipelines.models.interactions import seen_items

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

NDCG = "ndcg_at_10"
RECALL = "recall_at_50"
COVERAGE, TOP_SHARE, NOVELTY = "coverage", "top_share", "novelty"
#: Lists must be at least this long to be evaluated.
EVALUATED_LENGTH = 50
_NDCG_LENGTH = 10


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


def relevance(relevant: pa.ListArray, items: int) -> NDArray[np.bool_]:
    """Return [users, items]: whether the item with that number is relevant to the user."""
    lengths = relevant.value_lengths().to_numpy(zero_copy_only=False)
    matrix = np.zeros((len(lengths), items), bool)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    matrix[rows, relevant.flatten().to_numpy(zero_copy_only=False)] = True
    return matrix


def ndcg_at_10(hits: NDArray[np.bool_], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each user's NDCG@10 [users] float64, with binary relevance.

    `hits` [users, length] says which places of a list, best first, are relevant; `relevant` [users]
    how many items are, at least one: the ideal ranking has min(10, relevant) hits.
    """
    hits = hits[:, :_NDCG_LENGTH]
    discounts = 1 / np.log2(np.arange(_NDCG_LENGTH) + 2)
    ideal = np.cumsum(discounts)[np.minimum(relevant, _NDCG_LENGTH) - 1]
    return np.asarray((hits * discounts[: hits.shape[1]]).sum(axis=1) / ideal)


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
