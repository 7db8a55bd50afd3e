"""The best unseen items of every user: one blocked matrix product per Spark partition.

Spark's own ``recommendForAllUsers`` can't leave out seen items, so that a heavy user would need as
many more items fetched as they have seen. Here the seen ones are struck out of each row of scores
before the partial sort. What scores the items travels to the executors as one broadcast: a million
items of 64 components are 256 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from pyspark.sql import types as st

from pipelines.models.exploration import TURN, Exploration

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

#: At most this many scores are held at once (float32: 16 MB).
_SCORES_PER_BLOCK = 4_000_000
#: How far items without a vector lie below all products of vectors. At this distance float32
#: still tells the places of 15 million items apart.
BELOW_ALL = np.float32(1e6)


class Scorer(Protocol):
    """What ranks the items for a block of users; an item's number is its place in `ids`."""

    @property
    def ids(self) -> pa.Array:
        """Return the items' ids [n], int64 or string."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of users that :meth:`scores` reads."""

    def scores(self, users: pa.RecordBatch) -> NDArray[np.float32]:
        """Return finite scores [users, n], higher is better; the array is the caller's own."""


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
    columns: ClassVar[tuple[str, ...]] = ("vector",)

    @classmethod
    def collect(cls, items: DataFrame, id_column: str) -> Candidates:
        """Gather candidates from the columns `id_column`, item, popularity and vector.

        Item numbers are 0..n-1; a null vector says that there is none.
        """
        rows = items.select(id_column, "item", "popularity", "vector").toArrow().sort_by("item")
        popularity = rows["popularity"].to_numpy()
        vectors = vector_matrix(rows["vector"].combine_chunks())
        return cls(rows[id_column].combine_chunks(), _places(popularity), vectors)

    def by_popularity(self, popularity: NDArray[np.float64] | None = None) -> Candidates:
        """Return the same items without vectors, ranked by `popularity` [n] if it is given."""
        places = self.places if popularity is None else _places(popularity)
        return replace(self, places=places, vectors=np.full((len(self.ids), 1), np.nan, np.float32))

    def best(self, size: int) -> pa.Array:
        """Return the ids of the `size` items with the best places."""
        return self.ids.take(pa.array(np.argsort(self.places)[:size]))

    def scores(self, users: pa.RecordBatch) -> NDArray[np.float32]:
        """Return the products with the users' ``vector``, or the places for users without one."""
        vectors = vector_matrix(users["vector"])
        without_vector = np.isnan(self.vectors[:, 0])
        places = -self.places.astype(np.float32)
        without_user = np.isnan(vectors[:, 0])
        if without_vector.all() or without_user.all():
            return np.tile(places, (len(vectors), 1))
        scores = vectors @ self.vectors.T
        scores[:, without_vector] = places[without_vector] - BELOW_ALL
        scores[without_user] = places
        return scores


def _places(popularity: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the place of each item: the most popular first, ties by number."""
    places = np.empty(len(popularity), np.int64)
    places[np.argsort(-popularity, kind="stable")] = np.arange(len(popularity))
    return places


def vector_matrix(lists: pa.Array) -> NDArray[np.float32]:
    """Return [n, dimension] float32; a null list becomes a row of NaN."""
    known = lists.is_valid().to_numpy(zero_copy_only=False)
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    matrix = np.full((len(lists), len(flat) // known.sum() if known.any() else 1), np.nan, "f4")
    matrix[known] = flat.reshape(-1, matrix.shape[1])
    return matrix


def best(scores: NDArray[np.float32], size: int) -> NDArray[np.int64]:
    """Return the columns [rows, size] of each row's largest values: largest first, ties by column.

    It is a partial sort; `size` above the number of columns means all of them.
    """
    columns = scores.shape[1]
    size = min(size, columns)
    if size == 0:
        return np.empty((len(scores), 0), np.int64)
    top = np.argpartition(scores, columns - size, axis=1)[:, columns - size :]
    values = np.take_along_axis(scores, top, axis=1)
    least = values.min(axis=1, keepdims=True)
    # Of equal values at the end, the partition takes any.
    for row in np.flatnonzero((scores >= least).sum(axis=1) > size):
        above = np.flatnonzero(scores[row] > least[row])
        equal = np.flatnonzero(scores[row] == least[row])[: size - len(above)]
        top[row] = np.concatenate([above, equal])
        values[row] = scores[row, top[row]]
    return np.take_along_axis(top, np.lexsort((top, -values), axis=1), axis=1)


def mark_seen(scores: NDArray[np.float32], seen: pa.Array) -> None:
    """Set the scores [users, n] of each user's `seen` items (lists of numbers) to -inf."""
    rows = np.repeat(np.arange(len(seen)), seen.value_lengths().to_numpy(zero_copy_only=False))
    scores[rows, seen.flatten().to_numpy(zero_copy_only=False)] = -np.inf


def best_of_block(
    scorer: Scorer, users: pa.RecordBatch, size: int, exploration: Exploration | None
) -> pa.ListArray:
    """Return a list of item numbers (int32) for each user of a block: see :func:`top_unseen`."""
    scores = scorer.scores(users)
    mark_seen(scores, users["seen"])
    drawn = exploration.draw(users[TURN], scores) if exploration else []
    for row, new in enumerate(drawn):
        scores[row, new] = -np.inf
    top = best(scores, size)
    is_unseen = np.isfinite(np.take_along_axis(scores, top, axis=1))
    if exploration:
        rows = [
            exploration.insert(line[unseen], new, size)
            for line, unseen, new in zip(top, is_unseen, drawn, strict=True)
        ]
        lengths = [len(row) for row in rows]
        items = pa.array(np.concatenate(rows).astype(np.int32))
    else:
        lengths, items = is_unseen.sum(axis=1), pa.array(top[is_unseen].astype(np.int32))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, items)


def top_unseen(
    users: DataFrame, scorer: Scorer, size: int, exploration: Exploration | None = None
) -> DataFrame:
    """Return each user's `size` best items, without the seen ones, best first.

    `users` has the columns ``id``, ``seen`` (array<int> of item numbers) and what the scorer reads
    (for :class:`Candidates` ``vector``, array<float>, null without one); with `exploration` also
    ``turn``. The result has ``id``, ``value`` (array of item ids) and ``items`` (array<int> of
    their numbers). A list is shorter than `size` only if the user has seen nearly everything.
    Equal scores are ordered by item number.
    """
    id_type = st.StringType() if pa.types.is_string(scorer.ids.type) else st.LongType()
    schema = st.StructType(
        [
            users.schema["id"],
            st.StructField("value", st.ArrayType(id_type)),
            st.StructField("items", st.ArrayType(st.IntegerType())),
        ]
    )
    shared = users.sparkSession.sparkContext.broadcast((scorer, exploration))
    columns = ["id", "seen", *scorer.columns, *([TURN] if exploration else [])]

    def of_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        scorer, exploration = shared.value
        for block in user_blocks(batches, len(scorer.ids)):
            items = best_of_block(scorer, block, size, exploration)
            value = pa.ListArray.from_arrays(items.offsets, scorer.ids.take(items.values))
            yield pa.RecordBatch.from_arrays([block["id"], value, items], ["id", "value", "items"])

    return users.select(*columns).mapInArrow(of_partition, schema)


def user_blocks(batches: Iterator[pa.RecordBatch], items: int) -> Iterator[pa.RecordBatch]:
    """Cut batches of users so that a block's scores of all `items` fit into 16 MB."""
    size = max(1, _SCORES_PER_BLOCK // max(1, items))
    for batch in batches:
        for start in range(0, batch.num_rows, size):
            yield batch.slice(start, size)
