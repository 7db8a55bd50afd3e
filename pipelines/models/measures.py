"""Several rankings of the same users' unseen items, measured in one pass over the users.

The lists themselves go nowhere: each block of users gives sums, and how often each item is listed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.errors import DataError
from pipelines.evaluation.ranking import EVALUATED_LENGTH, NDCG, RECALL, ndcg_at_10, relevance
from pipelines.evaluation.scores import require_finite
from pipelines.models.exploration import TURN, Exploration
from pipelines.models.topn import Scorer, best_of_block, user_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Ranking:
    """What ranks the items for a user: a scorer, and maybe places for new items."""

    scorer: Scorer
    exploration: Exploration | None = None


@dataclass(frozen=True)
class Measured:
    """NDCG@10 and recall@50 by name, and how many lists have each item [n] int64, by its number."""

    metrics: dict[str, float]
    listed: NDArray[np.int64]


def measure_scorers(users: DataFrame, scorers: Mapping[str, Scorer]) -> dict[str, dict[str, float]]:
    """Return NDCG@10 and recall@50 of what each of the `scorers` ranks, by its name.

    `users` and errors as of :func:`measure_rankings`.
    """
    rankings = {name: Ranking(scorer) for name, scorer in scorers.items()}
    measured = measure_rankings(users, rankings, EVALUATED_LENGTH)
    return {name: found.metrics for name, found in measured.items()}


def measure_rankings(
    users: DataFrame, rankings: Mapping[str, Ranking], length: int
) -> dict[str, Measured]:
    """Return what the lists of `length`, 50 or more, that each ranking gives are worth, by name.

    They are the lists of :func:`pipelines.models.topn.top_unseen`. Their metrics are means over the
    users: NDCG@10 with binary relevance, and the share of a user's relevant items that are among
    the first 50. `users` has ``seen``, ``relevant`` (both
    array<int>, without a common item; the latter not empty) and what the scorers read, with an
    exploration also ``turn``; all rankings are of the same items.

    Raises:
        DataError: there are no users, or a metric is not finite.
    """
    names = list(rankings)
    shared = users.sparkSession.sparkContext.broadcast([rankings[name] for name in names])

    def of_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rankings = shared.value
        count = len(rankings[0].scorer.ids)
        listed = np.zeros((len(rankings), count), np.int64)
        for block in user_blocks(batches, count):
            sums = [
                gain
                for ranking, times in zip(rankings, listed, strict=True)
                for gain in _sums(ranking, block, length, times)
            ]
            yield _row(block.num_rows, sums, b"")
        yield _row(0, [], listed.tobytes())

    explores = any(ranking.exploration for ranking in rankings.values())
    read = {column for ranking in rankings.values() for column in ranking.scorer.columns}
    rows = (
        users.select("seen", "relevant", *sorted(read), *([TURN] if explores else []))
        .mapInArrow(of_partition, "users long, sums array<double>, listed binary")
        .collect()
    )
    count = sum(row["users"] for row in rows)
    if not count:
        raise DataError("no user of the holdout has a positive item that is new to them")
    sums = zip(*(row["sums"] for row in rows if row["users"]), strict=True)
    # Blocks are added up as they come: rounding hides what that does to the last bit.
    means = [round(math.fsum(gains) / count, 12) for gains in sums]
    counted = [np.frombuffer(row["listed"], np.int64) for row in rows if not row["users"]]
    listed = np.sum(counted, axis=0).reshape(len(names), -1)
    return {
        name: Measured(require_finite({NDCG: means[2 * i], RECALL: means[2 * i + 1]}), listed[i])
        for i, name in enumerate(names)
    }


def _row(users: int, sums: list[float], listed: bytes) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            pa.array([users], pa.int64()),
            pa.array([sums], pa.list_(pa.float64())),
            pa.array([listed], pa.binary()),
        ],
        ["users", "sums", "listed"],
    )


def _sums(
    ranking: Ranking, users: pa.RecordBatch, length: int, listed: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the sums of the users' NDCG@10 and recall@50; counts their items in `listed`."""
    lists = best_of_block(ranking.scorer, users, length, ranking.exploration)
    items = lists.flatten().to_numpy(zero_copy_only=False)
    listed += np.bincount(items, minlength=len(listed))
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(len(items)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    relevant = users["relevant"].value_lengths().to_numpy(zero_copy_only=False)
    is_relevant = relevance(users["relevant"], len(listed))
    hits = np.zeros((len(relevant), EVALUATED_LENGTH), bool)
    counts = places < EVALUATED_LENGTH
    hits[rows[counts], places[counts]] = is_relevant[rows[counts], items[counts]]
    return math.fsum(ndcg_at_10(hits, relevant)), math.fsum(hits.sum(axis=1) / relevant)
