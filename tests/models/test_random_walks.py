"""Random walks: along edges only, as often as node2vec's probabilities say, and always the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.models.random_walks import item_graph, random_walks

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Edges = dict[int, dict[int, int]]
Walk = list[int]

#: Two triangles and a path, with weights.
_SMALL = [(0, 1, 3), (0, 2, 1), (1, 2, 2), (2, 3, 4), (3, 4, 1), (3, 5, 2), (4, 5, 1), (5, 6, 5)]


def both_ways(edges: list[tuple[int, int, int]]) -> Edges:
    graph: Edges = defaultdict(dict)
    for left, right, weight in edges:
        graph[left][right] = graph[right][left] = weight
    return graph


def as_frame(spark: SparkSession, edges: Edges) -> DataFrame:
    rows = [(n, sorted(to), [to[x] for x in sorted(to)]) for n, to in sorted(edges.items())]
    schema = "node int, neighbours array<int>, weights array<bigint>"
    return spark.createDataFrame(rows, schema)


def paths(walks: DataFrame) -> dict[tuple[int, int], Walk]:
    return {(row["node"], row["walk"]): row["path"] for row in walks.collect()}


def node2vec(edges: Edges, before: int | None, node: int, p: float, q: float) -> dict[int, float]:
    """The definition, word by word."""
    biased = {}
    for x, weight in edges[node].items():
        if before is None:
            bias = 1.0
        elif x == before:
            bias = 1 / p
        else:
            bias = 1.0 if x in edges[before] else 1 / q
        biased[x] = weight * bias
    total = sum(biased.values())
    return {x: weight / total for x, weight in biased.items()}


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (0.25, 4.0)])
def test_every_step_is_as_likely_as_node2vec_says(spark: SparkSession, p: float, q: float) -> None:
    edges = both_ways(_SMALL)
    walks = paths(random_walks(as_frame(spark, edges), 2000, 5, p, q, seed=3))
    assert set(walks) == {(node, walk) for node in edges for walk in range(2000)}
    steps: dict[tuple[int | None, int], Counter[int]] = defaultdict(Counter)
    for (start, _), path in walks.items():
        assert path[0] == start
        assert len(path) == 5
        steps[None, start][path[1]] += 1
        for before, node, after in zip(path, path[1:], path[2:], strict=False):
            steps[before, node][after] += 1
    for (came_from, node), taken in steps.items():
        wanted = node2vec(edges, came_from, node, p, q)
        assert set(taken) <= set(wanted)
        count = taken.total()
        for x, probability in wanted.items():
            deviation = (probability * (1 - probability) / count) ** 0.5
            # Five of them: some 100 frequencies are compared.
            assert abs(taken[x] / count - probability) <= 5 * deviation + 1e-12


_EDGE = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 9))


@settings(max_examples=4)
@given(
    st.lists(_EDGE.filter(lambda e: e[0] != e[1]), min_size=1, max_size=30),
    st.sampled_from([0.1, 1.0, 7.0]),
    st.sampled_from([0.1, 1.0, 7.0]),
    st.integers(0, 2**40),
)
def test_walks_keep_to_the_edges_and_do_not_depend_on_how_rows_are_spread(
    spark: SparkSession, drawn: list[tuple[int, int, int]], p: float, q: float, seed: int
) -> None:
    edges = both_ways(drawn)
    graph = as_frame(spark, edges)
    walks = paths(random_walks(graph, 3, 6, p, q, seed))
    assert len(walks) == 3 * len(edges)
    for path in walks.values():
        assert all(right in edges[left] for left, right in pairwise(path))
    spread = graph.repartition(5, "neighbours")
    assert paths(random_walks(spread, 3, 6, p, q, seed)) == walks


def test_another_seed_gives_other_walks(spark: SparkSession) -> None:
    graph = as_frame(spark, both_ways(_SMALL))
    first, second = (paths(random_walks(graph, 5, 8, 1.0, 1.0, seed)) for seed in (1, 2))
    assert first != second
    assert len({tuple(path) for path in first.values()}) > 20


def test_edges_join_what_somebody_visited_in_turn(spark: SparkSession) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    visited = {1: [0, 1, 2, 3], 2: [1, 0, 0], 3: [7], 4: [5, 5]}
    visits = [
        (user, start + timedelta(hours=place), node)
        for user, nodes in visited.items()
        for place, node in enumerate(nodes)
    ]
    frame = spark.createDataFrame(visits, "user_id long, timestamp timestamp, node int")
    edges = {
        row["node"]: dict(zip(row["neighbours"], row["weights"], strict=True))
        for row in item_graph(frame, span=2, max_neighbours=2).collect()
    }
    # One place apart counts 2, two places 1; node 1 has no room for its third edge. Whoever has
    # only one item, or the same again and again, has no edge.
    assert edges == {
        0: {1: 2 + 2 + 1, 2: 1},
        1: {0: 5, 2: 2},
        2: {1: 2, 3: 2},
        3: {1: 1, 2: 2},
    }
