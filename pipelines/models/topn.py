"""The best unseen items of every user: one blocked matrix product per Spark partition.

Spark's own ``recommendForAllUsers`` can't leave out seen items, so that a heavy user would need as
many more items fetched as they have seen. Here the seen ones are struck out of each row of scores
before the partial sort. The candidates travel to the executors as one broadcast: a million items
of 64 components are 256 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import types as st

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

#: At most this many scores are held at once (float32: 16 MB).
_SCORES_PER_BLOCK = 4_000_000
#: How far items without a vector lie below all products of vectors. At this distance float32
#: still tells the places of 15 million items apart.
_BELOW_ALL = np.float32(1e6)


@dataclass(frozen=True)
class Candidates:
    """The items to choose from; an item's number is its row.

    `ids` [n] are int64 or string. `places` [n] int64 is each item's place, 0 the best, in an order
    that needs no vectors (popularity): it ranks the items for users without a vector, and the
    items without a vector behind all others. `vectors` [n, dimension] float32 has rows of NaN for
    items without one.
    """

    ids: pa.Array
    places: NDArray[np.int64]
    vectors: NDArray[np.float32]

    @classmethod
    def collect(cls, items: DataFrame, id_column: str) -> Candidates:
        """Gather candidates from the columns `id_column`, item, popularity and vector.

        Item numbers are 0..n-1; a null vector says that there is none.
        """
        rows = items.select(id_column, "item", "popularity", "vector").toArrow().sort_by("item")
        popularity = rows["popularity"].to_numpy()
        vectors = _matrix(rows["vector"].combine_chunks())
        return cls(rows[id_column].combine_chunks(), _places(popularity), vectors)

    def by_popularity(self, popularity: NDArray[np.float64] | None = None) -> Candidates:
        """Return the same items without vectors, ranked by `popularity` [n] if it is given."""
        places = self.places if popularity is None else _places(popularity)
        return replace(self, places=places, vectors=np.full((len(self.ids), 1), np.nan, np.float32))

    def best(self, size: int) -> pa.Array:
        """Return the ids of the `size` items with the best places."""
        return self.ids.take(pa.array(np.argsort(self.places)[:size]))


def _places(popularity: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the place of each item: the most popular first, ties by number."""
    places = np.empty(len(popularity), np.int64)
    places[np.argsort(-popularity, kind="stable")] = np.arange(len(popularity))
    return places


def _matrix(lists: pa.Array) -> NDArray[np.float32]:
    """Return [n, dimension] float32; a null list becomes a row of NaN."""
    known = lists.is_valid().to_numpy(zero_copy_only=False)
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    matrix = np.full((len(lists), len(flat) // known.sum() if known.any() else 1), np.nan, "f4")
    matrix[known] = flat.reshape(-1, matrix.shape[1])
    return matrix


def _scores(candidates: Candidates, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return [users, items] scores, higher is better, for user vectors [users, dimension]."""
    without_vector = np.isnan(candidates.vectors[:, 0])
    places = -candidates.places.astype(np.float32)
    without_user = np.isnan(vectors[:, 0])
    if without_vector.all() or without_user.all():
        return np.tile(places, (len(vectors), 1))
    scores = vectors @ candidates.vectors.T
    scores[:, without_vector] = places[without_vector] - _BELOW_ALL
    scores[without_user] = places
    return scores


def _best_of_block(candidates: Candidates, users: pa.RecordBatch, size: int) -> pa.RecordBatch:
    scores = _scores(candidates, _matrix(users["vector"]))
    seen = users["seen"]
    rows = np.repeat(np.arange(len(seen)), seen.value_lengths().to_numpy(zero_copy_only=False))
    scores[rows, seen.flatten().to_numpy(zero_copy_only=False)] = -np.inf

    size = min(size, scores.shape[1])
    top = np.argpartition(scores, scores.shape[1] - size, axis=1)[:, scores.shape[1] - size :]
    values = np.take_along_axis(scores, top, axis=1)
    order = np.lexsort((top, -values), axis=1)
    top = np.take_along_axis(top, order, axis=1).astype(np.int32)
    is_unseen = np.isfinite(np.take_along_axis(values, order, axis=1))

    offsets = pa.array(np.concatenate([[0], np.cumsum(is_unseen.sum(axis=1))]), pa.int32())
    items = pa.array(top[is_unseen])
    value = pa.ListArray.from_arrays(offsets, candidates.ids.take(items))
    return pa.RecordBatch.from_arrays(
        [users["id"], value, pa.ListArray.from_arrays(offsets, items)], ["id", "value", "items"]
    )


def top_unseen(users: DataFrame, candidates: Candidates, size: int) -> DataFrame:
    """Return each user's `size` best items by dot product, without the seen ones, best first.

    `users` has the columns ``id``, ``vector`` (array<float>, null without one) and ``seen``
    (array<int> of item numbers). The result has ``id``, ``value`` (array of item ids) and
    ``items`` (array<int> of their numbers). A list is shorter than `size` only if the user has
    seen nearly everything. Equal scores are ordered by item number.
    """
    id_type = st.StringType() if pa.types.is_string(candidates.ids.type) else st.LongType()
    schema = st.StructType(
        [
            users.schema["id"],
            st.StructField("value", st.ArrayType(id_type)),
            st.StructField("items", st.ArrayType(st.IntegerType())),
        ]
    )
    shared = users.sparkSession.sparkContext.broadcast(candidates)
    block = max(1, _SCORES_PER_BLOCK // len(candidates.ids))

    def of_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for start in range(0, batch.num_rows, block):
                yield _best_of_block(shared.value, batch.slice(start, block), size)

    return users.select("id", "vector", "seen").mapInArrow(of_partition, schema)
