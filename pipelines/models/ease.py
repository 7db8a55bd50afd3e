"""EASE (Steck 2019, "Embarrassingly Shallow Autoencoders"): item-item weights in closed form.

With X the users' positives and P the inverse of X'X + lambda I, the weight of item i for the score
of item j is -P[i, j] / P[j, j], and 0 for i = j; a user's scores are X's row times the weights.

X'X is counted by Spark, a block of columns at a time, so that no interaction reaches the driver.
For n items the driver holds the matrix once, 8 n^2 bytes, and inverts it in place: 200 MB and some
seconds for 5,000 items, 3.2 GB and some minutes for 20,000. An executor holds 32 MB of counts for
each block that it works on. The kept weights are 12 bytes each, 100 MB for 30,000 items of 300.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import functions as sf
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.sparse import csr_matrix

from pipelines.errors import DataError
from pipelines.features.schema import ITEM_ID, USER_ID
from pipelines.models.interactions import IS_POSITIVE, ITEM
from pipelines.models.topn import best
from pipelines.models_config import EaseConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

#: At most this many counts are held for a block of columns (float32: 32 MB).
_COUNTS_PER_BLOCK = 8_000_000
#: Rows that are copied, or searched for their largest entries, at once.
_ROWS_AT_ONCE = 256


def fit_ease(pairs: DataFrame, catalogue: DataFrame, config: EaseConfig) -> pa.Table:
    """Return ``item_id``, ``others`` (list of item ids) and ``weights`` (list of float32).

    One row for each item that the model knows, in the order of their numbers: its largest weights
    by size, largest first, for the scores of the others. `pairs` has user_id, item and
    is_positive, `catalogue` item_id and item.

    Raises:
        DataError: the driver has not enough memory, or the matrix has no inverse.
    """
    positives = pairs.where(IS_POSITIVE).select(USER_ID, ITEM)
    popular = (
        positives.groupBy(ITEM)
        .agg(sf.count("*").alias("users"))
        .where(sf.col("users") >= config.min_users)
        .orderBy(sf.desc("users"), ITEM)
        .limit(config.max_items)
    )
    known = catalogue.join(popular, ITEM).select(ITEM, ITEM_ID).toArrow().sort_by(ITEM)
    ids = known[ITEM_ID].combine_chunks()
    try:
        weights = _weights(_gram(positives, known[ITEM].to_numpy(), config), config)
    except MemoryError as error:
        size = 8 * len(ids) ** 2 / 1e9
        raise DataError(
            f"EASE of {len(ids)} items needs {size:.1f} GB and the driver has less: "
            "lower models.recs.ease.max_items"
        ) from error
    offsets = pa.array(weights.indptr, pa.int32())
    others = pa.ListArray.from_arrays(offsets, ids.take(pa.array(weights.indices)))
    values = pa.ListArray.from_arrays(offsets, pa.array(weights.data, pa.float32()))
    return pa.table({ITEM_ID: ids, "others": others, "weights": values})


def co_occurrences(users: DataFrame, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Give the number and the float32 [size] row of X'X, for each row that is not all zero.

    `users` has ``rows`` (array<int>): the numbers, below `size`, of what each user likes. A user
    is sent to each block of columns with something of theirs, and a block is counted in one place:
    nothing is added up across tasks. Counts are exact up to 2^24.
    """
    spark = users.sparkSession
    tasks = spark.sparkContext.defaultParallelism
    width = max(1, min(_COUNTS_PER_BLOCK // size, -(-size // tasks)))
    blocks = -(-size // width)

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        counts: dict[int, NDArray[np.float32]] = {}
        for batch in batches:
            numbers = batch["block"].to_numpy()
            for block in np.unique(numbers):
                lists = batch["rows"].filter(pa.array(numbers == block))
                matrix = _one_hot(lists, size)
                start = int(block) * width
                part = matrix[:, start : start + width].T.tocsr() @ matrix
                total = counts.setdefault(int(block), np.zeros(part.shape, np.float32))
                total += part.toarray()
        for block, total in counts.items():
            rows = pa.array(np.arange(len(total), dtype=np.int32) + block * width)
            values = pa.array([row.tobytes() for row in total], pa.binary())
            yield pa.RecordBatch.from_arrays([rows, values], ["row", "counts"])

    in_blocks = sf.transform("rows", lambda row: sf.floor(row / width).cast("int"))
    counted = (
        users.select("rows", sf.explode(sf.array_distinct(in_blocks)).alias("block"))
        .repartition(blocks, "block")
        .mapInArrow(count, "row int, counts binary")
        .persist(StorageLevel.DISK_ONLY)
    )
    try:
        counted.count()  # All blocks at once; they are fetched one after the other.
        for row in counted.toLocalIterator():
            yield row["row"], np.frombuffer(row["counts"], np.float32)
    finally:
        counted.unpersist()


def _one_hot(lists: pa.Array, size: int) -> csr_matrix:
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    columns = lists.flatten().to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((np.ones(len(columns), np.float32), columns, starts), (len(lists), size))


def _gram(
    positives: DataFrame, items: NDArray[np.int32], config: EaseConfig
) -> NDArray[np.float64]:
    """Return X'X + lambda I for the items with these numbers, in Fortran's order."""
    size = len(items)
    gram = np.zeros((size, size), np.float64, order="F")
    if size:
        numbers = positives.sparkSession.createDataFrame(
            pa.table({ITEM: items, "row": np.arange(size, dtype=np.int32)})
        )
        users = (
            positives.join(sf.broadcast(numbers), ITEM)
            .groupBy(USER_ID)
            .agg(sf.collect_list("row").alias("rows"))
        )
        for row, counts in co_occurrences(users, size):
            gram[:, row] = counts
    gram[np.diag_indices(size)] += config.regularization
    return gram


def _weights(gram: NDArray[np.float64], config: EaseConfig) -> csr_matrix:
    """Return the kept weights [n, n], those of an item largest first; `gram` is overwritten."""
    size = len(gram)
    if size == 0:
        return csr_matrix((0, 0), dtype=np.float32)
    lower, failed = dpotrf(gram, lower=1, overwrite_a=1)
    if not failed:
        lower, failed = dpotri(lower, lower=1, overwrite_c=1)
    if failed:
        raise DataError(
            "EASE: the Gram matrix has no inverse: raise models.recs.ease.regularization"
        )
    for start in range(0, size, _ROWS_AT_ONCE):
        end = start + _ROWS_AT_ONCE
        square = lower[start:end, start:end]
        square[:] = np.tril(square) + np.tril(square, -1).T
        lower[start:end, end:] = lower[end:, start:end].T

    diagonal = lower.diagonal().copy()
    kept = min(config.kept, size - 1)
    columns = np.empty((size, kept), np.int32)
    values = np.empty((size, kept), np.float32)
    for start in range(0, size, _ROWS_AT_ONCE):
        rows = (-lower[start : start + _ROWS_AT_ONCE] / diagonal).astype(np.float32)
        rows[np.arange(len(rows)), np.arange(start, start + len(rows))] = 0
        order = best(np.abs(rows), kept)
        columns[start : start + len(rows)] = order
        values[start : start + len(rows)] = np.take_along_axis(rows, order, axis=1)
    return csr_matrix((values.ravel(), columns.ravel(), np.arange(size + 1) * kept), (size, size))
