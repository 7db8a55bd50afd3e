"""A weighted graph of items, and random walks on it, both made by Spark without the driver.

The walks are DeepWalk's (Perozzi, Al-Rfou, Skiena 2014) where p = q = 1, and node2vec's (Grover,
Leskovec 2016) else: from node v, reached from t, the next node x is drawn with a probability
proportional to weight(v, x) times 1/p if x is t, 1 if t has an edge to x, and 1/q else. Every step
joins all walkers with the edges of the nodes at which they are, so that no machine holds the graph.

Each draw is a hash of the seed, the walk and the step: it depends neither on how rows are spread
nor on the order in which tasks end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import Window
from pyspark.sql import functions as sf
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import IntegerType

from pipelines.features.schema import TIMESTAMP, USER_ID

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame

#: Number of an item among the nodes of the graph, from 0.
NODE = "node"
#: After this many steps the walks so far are kept, so that Spark's plan does not grow any longer.
_STEPS_PER_PLAN = 10


def item_graph(visits: DataFrame, span: int, max_neighbours: int) -> DataFrame:
    """Return the graph of items that the same users visited shortly after each other.

    `visits` has user_id, timestamp and node (int). Two visits of a user that are d <= `span` places
    apart add span + 1 - d to the weight of the edge between their nodes, in both directions.

    Returns:
        node, neighbours (array<int>, ascending) and weights (array<bigint>, beside them). A node
        has its `max_neighbours` heaviest edges (ties by number); one without edges is left out.
    """
    order = Window.partitionBy(USER_ID).orderBy(TIMESTAMP, NODE)
    ahead = [
        sf.struct(
            sf.lead(NODE, distance).over(order).alias("other"),
            sf.lit(span + 1 - distance).cast("bigint").alias("weight"),
        )
        for distance in range(1, span + 1)
    ]
    # Spark has no generator of what a window function gives: first the one, then the other.
    followed = visits.select(NODE, sf.array(*ahead).alias("ahead"))
    pairs = followed.select(NODE, sf.explode("ahead").alias("pair")).select(
        NODE, "pair.other", "pair.weight"
    )
    there = pairs.where(sf.col("other").isNotNull() & (sf.col("other") != sf.col(NODE)))
    back = there.select(sf.col("other").alias(NODE), sf.col(NODE).alias("other"), "weight")
    # The weights are whole numbers: their sums don't depend on the order.
    edges = there.union(back).groupBy(NODE, "other").agg(sf.sum("weight").alias("weight"))
    place = sf.row_number().over(Window.partitionBy(NODE).orderBy(sf.desc("weight"), "other"))
    kept = edges.withColumn("place", place).where(sf.col("place") <= max_neighbours)
    lists = kept.groupBy(NODE).agg(
        sf.array_sort(sf.collect_list(sf.struct("other", "weight"))).alias("edges")
    )
    return lists.select(
        NODE,
        sf.col("edges.other").alias("neighbours"),
        sf.col("edges.weight").alias("weights"),
    )


def random_walks(
    graph: DataFrame, walks: int, length: int, p: float, q: float, seed: int
) -> DataFrame:
    """Return `walks` walks of `length` nodes from each node of `graph`.

    `graph` is as :func:`item_graph` returns it: every neighbour is a node too.

    Returns:
        node (where the walk starts), walk (0 to walks - 1) and path (array<int>).
    """
    second_order = p != 1.0 or q != 1.0
    there = graph.select(
        sf.col(NODE).alias("current"), "neighbours", sf.col("weights").alias("edge_weights")
    )
    nothing = sf.array().cast("array<int>")
    walkers = graph.select(
        NODE,
        sf.explode(sf.sequence(sf.lit(0), sf.lit(walks - 1))).alias("walk"),
        sf.array(NODE).alias("path"),
        sf.col(NODE).alias("current"),
        sf.lit(-1).alias("previous"),
        nothing.alias("previous_neighbours"),
    )
    choose = _next_node(p, q)
    for step in range(1, length):
        # Without the hint Spark would send a small graph to the driver to broadcast it.
        met = walkers.join(there.hint("shuffle_hash"), "current")
        chosen = choose(
            "neighbours", "edge_weights", "previous", "previous_neighbours", _draw(seed, step)
        )
        walkers = met.withColumn("next", chosen).select(
            NODE,
            "walk",
            sf.array_append("path", sf.col("next")).alias("path"),
            sf.col("next").alias("current"),
            sf.col("current").alias("previous") if second_order else "previous",
            sf.col("neighbours").alias("previous_neighbours")
            if second_order
            else "previous_neighbours",
        )
        if step % _STEPS_PER_PLAN == 0:
            walkers = walkers.localCheckpoint()
    return walkers.select(NODE, "walk", "path")


def _draw(seed: int, step: int) -> Column:
    """Return a number in [0, 1) that follows from the seed, the walk and the step."""
    mixed = sf.xxhash64(sf.lit(seed), NODE, "walk", sf.lit(step))
    return sf.shiftrightunsigned(mixed, 11).cast("double") * sf.lit(2.0**-53)


def _next_node(p: float, q: float) -> Callable[..., Column]:
    """Return the function of columns that chooses where each walker goes."""

    def choose(
        neighbours: pa.Array,
        weights: pa.Array,
        previous: pa.Array,
        previous_neighbours: pa.Array,
        draws: pa.Array,
    ) -> pa.Array:
        nodes = _padded(neighbours, -1)
        biased = _padded(weights, 0).astype(np.float64)
        before = previous.to_numpy()[:, None]
        bias = np.where(_contains(previous_neighbours, nodes), 1.0, 1.0 / q)
        bias[nodes == before] = 1.0 / p
        # A walk's first step comes from nowhere.
        biased *= np.where(before < 0, 1.0, bias)
        return pa.array(_drawn(nodes, biased, draws.to_numpy()), pa.int32())

    # Spark's stubs know of functions of iterators only.
    columns: Callable[..., Column] = arrow_udf(choose, IntegerType())  # type: ignore[call-overload]
    return columns


def _drawn(
    nodes: NDArray[np.int64], weights: NDArray[np.float64], draws: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return one of the `nodes` [n, width] for each row, by `weights` alike and `draws` [n]."""
    # Summed along each row, not along all of them: a row's sums, and so its choice, must not
    # depend on the rows that happen to be in the same batch.
    reached = np.cumsum(weights, axis=1)
    place = (reached <= draws[:, None] * reached[:, -1:]).sum(axis=1)
    last = (weights > 0).sum(axis=1) - 1
    chosen: NDArray[np.int64] = nodes[np.arange(len(nodes)), np.minimum(place, last)]
    return chosen


def _padded(lists: pa.Array, fill: int) -> NDArray[np.int64]:
    """Return [n, longest] with the lists from the left, and `fill` behind them."""
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    matrix = np.full((len(lists), max(1, lengths.max(initial=0))), fill, np.int64)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = lists.flatten().to_numpy()
    return matrix


def _contains(lists: pa.Array, nodes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell for each of the `nodes` [n, width] whether it is in the list of its row."""
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    listed = lists.flatten().to_numpy().astype(np.int64)
    size = 1 + max(listed.max(initial=0), nodes.max(initial=0))
    rows = np.arange(len(nodes), dtype=np.int64)
    known = np.repeat(rows, lengths) * size + listed
    return np.isin(rows[:, None] * size + np.maximum(nodes, 0), known)
