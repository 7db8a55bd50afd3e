"""The blend of ALS, EASE and popularity, with weights that are chosen on the holdout.

Each model's scores are standardised for each user over all items that anybody liked (their mean 0,
their standard deviation 1), so that the weights mean the same for everybody; popularity goes in by
its logarithm. The weights come from a small grid.

To choose on the holdout and then to report the best of what was tried would flatter. So the
holdout's users fall into two halves by a hash of their ids, and each half is ranked with the
weights that the other half prefers: the reported metrics are of users who had no say. What is
released has the weights that all prefer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import Column
from pyspark.sql import functions as sf
from scipy.sparse import csr_matrix

from pipelines.evaluation.ranking import ndcg_at_10, relevance
from pipelines.models.topn import BELOW_ALL, best, mark_seen, user_blocks, vector_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

#: What is blended, in the order of the weights.
COMPONENTS = ("als", "ease", "popularity")
#: The column that says which weights a user gets: those for half 0 or 1 of the holdout, or those
#: that are released.
PART = "part"
RELEASED = 2
_ALS_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_POPULARITY_WEIGHTS = (0.0, 0.1)
_LENGTH = 10
#: The choice is made by about this many users of the holdout; more would change nothing.
_VOTERS = 20_000


def half() -> Column:
    """Return the column ``part`` (int) of holdout users with the column ``id``: 0 or 1."""
    return sf.pmod(sf.xxhash64(sf.col("id").cast("string")), sf.lit(2)).cast("int").alias(PART)


def grid(als: bool, ease: bool) -> NDArray[np.float32]:
    """Return the weights [n, 3] that are tried, with those of a model that is off at 0."""
    shares = _ALS_SHARES if als and ease else (float(als),)
    rows = [(share, 1 - share, popular) for share in shares for popular in _POPULARITY_WEIGHTS]
    return np.array(rows, np.float32)


@dataclass(frozen=True)
class BlendWeights:
    """The weights of the components [3, 3] float32: a row for each ``part``."""

    values: NDArray[np.float32]

    @classmethod
    def only(cls, component: str) -> BlendWeights:
        """Return the weights that rank by one component alone."""
        row = [float(name == component) for name in COMPONENTS]
        return cls(np.tile(np.array(row, np.float32), (RELEASED + 1, 1)))

    def released(self) -> dict[str, float]:
        """Return the released weights by component."""
        row = self.values[RELEASED].tolist()
        return {name: round(value, 6) for name, value in zip(COMPONENTS, row, strict=True)}

    def write(self, folder: Path) -> None:
        """Keep the weights in `folder`."""
        columns = {name: self.values[:, i] for i, name in enumerate(COMPONENTS)}
        folder.mkdir(parents=True)
        pq.write_table(pa.table(columns), folder / "part-00000.parquet")

    @classmethod
    def read(cls, folder: Path) -> BlendWeights:
        """Return what :meth:`write` kept."""
        table = pq.read_table(folder)
        return cls(np.stack([table[name].to_numpy() for name in COMPONENTS], axis=1))


@dataclass(frozen=True)
class Blend:
    """Scores items by a weighted sum of the components; a scorer of :mod:`~pipelines.models.topn`.

    `ids` [n] are all items. `places` [n] int64 is their order by popularity: it ranks the items
    for users of whom no component knows anything, and what nobody liked behind all others. `liked`
    [k] int64 are the numbers of the items that somebody liked; the components are about these:
    `vectors` [k, dimension] float32 are ALS's, NaN for none; `weights` [k, k] float32 is EASE's,
    both None if the model is off; `popularity` [k] float32 is standardised.

    Users have ``vector`` (array<float> or null), ``history`` (array of item ids that they liked,
    newest first, or null) and ``part``.
    """

    ids: pa.Array
    places: NDArray[np.int64]
    liked: NDArray[np.int64]
    popularity: NDArray[np.float32]
    vectors: NDArray[np.float32] | None
    weights: csr_matrix | None
    history_half_life: float | None
    blend: BlendWeights
    columns: ClassVar[tuple[str, ...]] = ("vector", "history", PART)

    def scores(self, users: pa.RecordBatch) -> NDArray[np.float32]:
        """Return the blended scores [users, n]."""
        parts = users[PART].to_numpy()
        return self.rank(self.components(users), self.blend.values[parts])

    def components(self, users: pa.RecordBatch) -> list[NDArray[np.float32] | None]:
        """Return each component's standardised scores [users, k] or [k]; None if it is off.

        Rows of zeros are users that the component does not know.
        """
        als = ease = None
        if self.vectors is not None:
            vectors = vector_matrix(users["vector"])
            if np.isnan(vectors[:, 0]).all():
                als = np.zeros((len(vectors), len(self.liked)), np.float32)
            else:
                als = _standardised(np.nan_to_num(vectors) @ np.nan_to_num(self.vectors).T)
        if self.weights is not None:
            ease = _standardised((self._history(users["history"]) @ self.weights).toarray())
        return [als, ease, self.popularity]

    def rank(
        self, components: list[NDArray[np.float32] | None], weights: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the scores [users, n] for weights [users, 3]."""
        blended = np.zeros((len(weights), len(self.liked)), np.float32)
        knows = np.zeros(len(weights), bool)
        for scores, weight in zip(components, weights.T, strict=True):
            if scores is not None:
                blended += weight[:, None] * scores
                knows |= (weight > 0) & scores.any(axis=-1)
        places = -self.places.astype(np.float32)
        result = np.tile(places - BELOW_ALL, (len(weights), 1))
        result[:, self.liked] = blended
        result[~knows] = places
        return result

    def _history(self, history: pa.Array) -> csr_matrix:
        """Return [users, k]: how much each of a user's positives counts."""
        lengths = history.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(np.arange(len(lengths)), lengths)
        if self.history_half_life is None:
            values = np.ones(len(rows), np.float32)
        else:
            age = np.arange(len(rows)) - starts[rows]
            values = np.exp2(-age / self.history_half_life).astype(np.float32)
        liked_ids = self.ids.take(pa.array(self.liked))
        numbers = pc.index_in(history.flatten(), value_set=liked_ids).fill_null(-1).to_numpy()
        known = numbers >= 0
        shape = (len(lengths), len(self.liked))
        return csr_matrix((values[known], (rows[known], numbers[known])), shape, np.float32)


def _standardised(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows with mean 0 and standard deviation 1; a constant row becomes zeros."""
    scores -= scores.mean(axis=1, keepdims=True)
    deviation = scores.std(axis=1, keepdims=True)
    constant = deviation < 1e-12
    scores /= np.where(constant, 1, deviation)
    scores[constant[:, 0]] = 0
    return scores


def choose_weights(users: DataFrame, blend: Blend, tried: NDArray[np.float32]) -> BlendWeights:
    """Return the weights among `tried` [n, 3] with the best mean NDCG@10 on the holdout.

    `users` has what the blend reads, ``seen`` and ``relevant`` (array<int>, not empty). The row
    for a half is what the users of the other half prefer; of equals, the first that was tried.
    """
    spark = users.sparkSession
    shared = spark.sparkContext.broadcast(blend)

    def measure(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        blend = shared.value
        for block in user_blocks(batches, len(blend.ids)):
            components = blend.components(block)
            gains = [
                _ndcg(blend.rank(components, np.tile(row, (block.num_rows, 1))), block)
                for row in tried
            ]
            # Whole numbers: their sums do not depend on the order in which tasks end.
            values = pa.array(np.rint(np.stack(gains, axis=1) * 1e9).astype(np.int64).ravel())
            lists = pa.FixedSizeListArray.from_arrays(values, len(tried)).cast(pa.list_(pa.int64()))
            yield pa.RecordBatch.from_arrays([block[PART], lists], [PART, "gains"])

    voters = users.select("id", *blend.columns, "seen", "relevant")
    count = voters.count()
    if count > _VOTERS:
        draw = sf.pmod(sf.xxhash64(sf.col("id").cast("string"), sf.lit("voter")), sf.lit(count))
        voters = voters.where(draw < _VOTERS)
    sums = (
        voters.mapInArrow(measure, f"{PART} int, gains array<bigint>")
        .select(PART, sf.posexplode("gains").alias("row", "gain"))
        .groupBy(PART, "row")
        .agg(sf.sum("gain").alias("gain"))
        .collect()
    )
    gains = np.zeros((2, len(tried)))
    for row in sums:
        gains[row[PART], row["row"]] = row["gain"]
    both = gains.sum(axis=0)
    preferred = [other if other.any() else both for other in (gains[1], gains[0])]
    return BlendWeights(tried[[means.argmax() for means in (*preferred, both)]])


def _ndcg(scores: NDArray[np.float32], users: pa.RecordBatch) -> NDArray[np.float64]:
    """Return each user's NDCG@10 of the unseen items with the best of these scores."""
    mark_seen(scores, users["seen"])
    relevant = relevance(users["relevant"], scores.shape[1])
    hits = np.take_along_axis(relevant, best(scores, _LENGTH), axis=1)
    return ndcg_at_10(hits, users["relevant"].value_lengths().to_numpy(zero_copy_only=False))
