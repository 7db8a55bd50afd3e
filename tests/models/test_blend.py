"""The blend: scores and NDCG against a direct computation, and weights that others chose."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix

from pipelines.models.blend import (
    RELEASED,
    Blend,
    BlendWeights,
    _ndcg,
    choose_weights,
    grid,
    half,
)
from pipelines.models.topn import mark_seen

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

ITEMS, LIKED = 40, 30
HALF_LIFE = 2.0


@pytest.fixture
def blend() -> Blend:
    """Nobody liked the last ten items."""
    rng = np.random.default_rng(1)
    popularity = np.arange(LIKED, 0, -1.0)
    return Blend(
        ids=pa.array([f"i{n:02}" for n in range(ITEMS)]),
        places=np.arange(ITEMS),
        liked=np.arange(LIKED),
        popularity=((popularity - popularity.mean()) / popularity.std()).astype(np.float32),
        vectors=rng.normal(size=(LIKED, 3)).astype(np.float32),
        weights=csr_matrix(rng.normal(size=(LIKED, LIKED)).astype(np.float32)),
        history_half_life=HALF_LIFE,
        blend=BlendWeights(np.array([[1, 0, 0], [0, 1, 0], [0.3, 0.7, 0.1]], np.float32)),
    )


def batch(users: list[dict[str, Any]]) -> pa.RecordBatch:
    schema = pa.schema(
        [
            ("vector", pa.list_(pa.float32())),
            ("history", pa.list_(pa.string())),
            ("part", pa.int32()),
            ("seen", pa.list_(pa.int32())),
            ("relevant", pa.list_(pa.int32())),
        ]
    )
    return pa.RecordBatch.from_pylist(users, schema)


def standardised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((scores - scores.mean()) / scores.std())


def test_scores_agree_with_a_direct_computation(blend: Blend) -> None:
    known = {"vector": [0.5, -1.0, 2.0], "history": ["i03", "gone", "i10", "i35"]}
    scores = blend.scores(batch([{**known, "part": part} for part in range(3)]))
    assert blend.vectors is not None
    assert blend.weights is not None
    als = standardised(blend.vectors @ np.array(known["vector"]))
    weights = blend.weights.toarray()
    # The second and the fourth are not known: their places in the history count all the same.
    ease = standardised(weights[3] + 2 ** (-2 / HALF_LIFE) * weights[10])
    for row, weight in zip(scores, blend.blend.values, strict=True):
        expected = weight[0] * als + weight[1] * ease + weight[2] * blend.popularity
        assert row[:LIKED] == pytest.approx(expected, abs=1e-4)
        assert row[:LIKED].min() > row[LIKED:].max()
        assert (np.diff(row[LIKED:]) < 0).all()


def test_users_of_whom_nothing_is_known_get_the_order_by_popularity(blend: Blend) -> None:
    nothing: dict[str, Any] = {"vector": None, "history": None}
    rows = [{**nothing, "part": part} for part in range(3)]
    rows += [{"vector": None, "history": ["gone", "i39"], "part": 1}]
    for users in (rows, [*rows, {"vector": [1.0, 0.0, 0.0], "history": ["i01"], "part": 0}]):
        scores = blend.scores(batch(users))[: len(rows)]
        assert (np.diff(scores, axis=1) < 0).all()


def test_a_model_that_is_off_is_not_asked(blend: Blend) -> None:
    users = batch([{"vector": [1.0, 2.0, 3.0], "history": ["i01"], "part": RELEASED}])
    whole = replace(blend, blend=BlendWeights.only("als")).scores(users)
    alone = replace(blend, weights=None, blend=BlendWeights.only("als")).scores(users)
    assert np.array_equal(whole, alone)
    assert grid(als=True, ease=False)[:, 1].tolist() == [0, 0]
    assert grid(als=False, ease=True)[:, 0].tolist() == [0, 0]


def test_ndcg_agrees_with_a_direct_computation() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(25, ITEMS)).astype(np.float32)
    users = batch(
        [
            {"seen": items[:8].tolist(), "relevant": items[8 : 9 + n % 14].tolist()}
            for n, items in enumerate(rng.permutation(ITEMS) for _ in range(25))
        ]
    )
    measured = _ndcg(scores.copy(), users)
    mark_seen(scores, users["seen"])
    for row, relevant, value in zip(scores, users["relevant"].to_pylist(), measured, strict=True):
        first = np.argsort(-row)[:10].tolist()
        gain = sum(1 / math.log2(i + 2) for i, item in enumerate(first) if item in relevant)
        ideal = sum(1 / math.log2(i + 2) for i in range(min(10, len(relevant))))
        assert value == pytest.approx(gain / ideal)


def test_each_half_gets_the_weights_that_the_other_prefers(
    spark: SparkSession, blend: Blend, tmp_path: Path
) -> None:
    """One half likes what the first model puts first, the other what the second does."""
    frame = spark.createDataFrame([(f"u{n}",) for n in range(40)], "id string")
    parts = {row["id"]: row["part"] for row in frame.select("id", half()).collect()}
    assert {0, 1} == set(parts.values())
    rng = np.random.default_rng(5)
    rows: list[Any] = []
    for user, part in sorted(parts.items()):
        known = {"vector": rng.normal(size=3).tolist(), "history": [f"i{rng.integers(LIKED):02}"]}
        best = int(blend.scores(batch([{**known, "part": part}]))[0].argmax())
        rows.append((user, known["vector"], known["history"], part, [], [best]))
    schema = (
        "id string, vector array<float>, history array<string>, part int, seen array<int>, "
        "relevant array<int>"
    )
    tried = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    chosen = choose_weights(spark.createDataFrame(rows, schema), blend, tried)
    assert chosen.values[0].tolist() == [0, 1, 0], "what half 1 prefers"
    assert chosen.values[1].tolist() == [1, 0, 0], "what half 0 prefers"
    assert chosen.values[RELEASED].tolist() in ([1, 0, 0], [0, 1, 0])
    chosen.write(tmp_path / "blend")
    assert np.array_equal(BlendWeights.read(tmp_path / "blend").values, chosen.values)
