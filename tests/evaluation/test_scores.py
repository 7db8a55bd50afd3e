"""AUC and log-loss against their definitions, and the baselines on rows worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from pipelines.errors import DataError
from pipelines.evaluation.scores import (
    Scored,
    auc,
    calibration_bins,
    calibration_error,
    log_loss,
    score_baselines,
    score_metrics,
    score_values,
)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.9])), max_size=30))
def test_auc_is_the_chance_that_a_positive_scores_higher(rows: list[tuple[bool, float]]) -> None:
    labels = np.array([float(label) for label, _ in rows])
    scores = np.array([score for _, score in rows])
    pairs = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in scores[labels == 1]
        for n in scores[labels == 0]
    ]
    if pairs:
        assert auc(labels, scores) == pytest.approx(np.mean(pairs))
    else:
        assert math.isnan(auc(labels, scores))


def test_log_loss() -> None:
    labels, scores = np.array([1.0, 0.0]), np.array([0.8, 0.4])
    assert log_loss(labels, scores) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert math.isfinite(log_loss(labels, np.array([0.0, 1.0])))


def samples(folder: Path, rows: list[tuple[int, str, float, bool | None]]) -> str:
    names = ["user_id", "item_id", "label", "is_holdout"]
    types = [pa.int64(), pa.string(), pa.float64(), pa.bool_()]
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    arrays = [pa.array(c, t) for c, t in zip(columns, types, strict=True)]
    table = pa.table(arrays, names)
    for name in ("user_rating_count", "item_rating_count"):
        table = table.append_column(name, pa.array([7] * len(rows), pa.int64()))
    pq.write_table(table, folder / "part-0.parquet")
    return str(folder)


ROWS: list[tuple[int, str, float, bool | None]] = [
    (1, "a", 1.0, False),
    (1, "b", 1.0, False),
    (2, "b", 0.0, False),
    (2, "a", 0.0, None),
    (1, "a", 1.0, True),
    (2, "c", 0.0, True),
    (3, "c", 1.0, True),
]


def test_baselines_come_from_training_rows_alone(tmp_path: Path) -> None:
    baselines = score_baselines(samples(tmp_path, ROWS))
    base = 2 / 3
    assert baselines.base_rate == pytest.approx(base)
    user_1, user_2 = (2 + 5 * base) / 7, (0 + 5 * base) / 6
    item_a = (1 + 5 * base) / 6
    labels = np.array([1.0, 0.0, 1.0])
    scores = np.array([user_1 + item_a - base, user_2, base])
    assert baselines.values["auc"] == {"constant": 0.5, "user_item_mean": 1.0}
    losses = baselines.values["log_loss"]
    assert losses["user_item_mean"] == pytest.approx(log_loss(labels, scores))
    assert losses["constant"] == pytest.approx(log_loss(labels, np.full(3, base)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no training samples"),
        ([r for r in ROWS if r[3] is not True], "holdout is empty"),
        ([r for r in ROWS if r[2] == 1.0], "training labels are 1"),
        ([r for r in ROWS if not (r[3] and r[2] == 0.0)], "holdout labels are 1"),
    ],
)
def test_what_can_not_be_measured_is_refused(
    tmp_path: Path, rows: list[tuple[int, str, float, bool | None]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        score_baselines(samples(tmp_path, rows))


def scored(labels: list[float], scores: list[float], users: int = 99, items: int = 99) -> Scored:
    size = len(labels)
    counts = (np.full(size, float(users)), np.full(size, float(items)))
    return Scored(np.array(labels), np.array(scores), *counts)


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    baselines = score_baselines(samples(tmp_path, ROWS))
    labels = [1.0, 0.0, 1.0]
    metrics = score_metrics(score_values(scored(labels, [0.9, 0.1, 0.2])), baselines)
    assert set(metrics) == {"auc", "log_loss", "calibration_error"}
    assert metrics["auc"].value == 1.0
    assert set(metrics["calibration_error"].baselines) == {"constant", "user_item_mean"}
    assert metrics["auc"].higher_is_better
    assert not metrics["log_loss"].higher_is_better
    with pytest.raises(DataError, match="1 holdout scores are not finite"):
        score_values(scored(labels, [0.9, math.nan, 0.2]))


def test_calibration_is_perfect_where_shares_are_what_was_said() -> None:
    labels = np.array([1.0] + [0.0] * 9 + [1.0] * 9 + [0.0])
    said = np.array([0.1] * 10 + [0.9] * 10)
    order = np.random.default_rng(0).permutation(20)
    # Ten bins of two rows: a bin's own share is what is compared.
    assert calibration_error(labels[order], np.full(20, 0.5)) == pytest.approx(
        np.mean([abs(labels[order][i : i + 2].mean() - 0.5) for i in range(0, 20, 2)])
    )
    wide = np.tile(labels, 100)
    assert calibration_error(wide, np.tile(said, 100)) == pytest.approx(0.0, abs=0.02)
    assert calibration_error(wide, np.tile(said, 100) / 2) > 0.2


def test_slices_are_measured_where_they_say_something() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.5).astype(float)
    scores = np.clip(labels * 0.3 + rng.random(400) * 0.7, 0, 1)
    users, items = np.repeat([0.0, 29.0, 30.0, 99.0], 100), np.tile([0.0, 4.0, 5.0, 9.0], 100)
    values = score_values(Scored(labels, scores, users, items))
    assert values["auc_new_users"] == auc(labels[:200], scores[:200])
    rare = items < 5
    assert values["log_loss_rare_items"] == log_loss(labels[rare], scores[rare])
    few = Scored(labels, scores, np.where(np.arange(400) < 49, 1.0, 99.0), items)
    assert "auc_new_users" not in score_values(few)
    one_label = Scored(labels, scores, np.where(labels == 1, 1.0, 99.0), items)
    assert "auc_new_users" not in score_values(one_label)


def test_values_agree_with_sparks_and_keras_own(spark: SparkSession) -> None:
    import keras
    from pyspark.ml.evaluation import BinaryClassificationEvaluator

    rng = np.random.default_rng(1)
    labels = (rng.random(500) < 0.4).astype(float)
    scores: Any = np.round(np.clip(labels * 0.2 + rng.random(500) * 0.8, 0, 1), 2)
    frame = spark.createDataFrame(
        [(float(label), float(score)) for label, score in zip(labels, scores, strict=True)],
        ["label", "score"],
    )
    evaluator = BinaryClassificationEvaluator(rawPredictionCol="score", numBins=0)
    assert auc(labels, scores) == pytest.approx(evaluator.evaluate(frame), abs=1e-9)
    loss = keras.losses.BinaryCrossentropy()(labels, scores)
    assert log_loss(labels, scores) == pytest.approx(float(loss), rel=1e-5)


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 20).map(lambda n: n / 20) | st.floats(0, 1)),
        max_size=60,
    )
)
def test_calibration_bins_are_what_each_row_says_of_itself(rows: list[tuple[bool, float]]) -> None:
    bins = calibration_bins(scored([float(label) for label, _ in rows], [s for _, s in rows]))
    assert [b.lower for b in bins] == [n / 20 for n in range(20)]
    assert [b.upper for b in bins] == [n / 20 for n in range(1, 21)]
    for number, found in enumerate(bins):
        inside = [
            (label, score)
            for label, score in rows
            if found.lower <= score < found.upper or (number == 19 and score == 1.0)
        ]
        assert found.count == len(inside)
        if not inside:
            assert found.mean_score is None
            assert found.positive_share is None
            continue
        assert found.mean_score == pytest.approx(np.mean([score for _, score in inside]))
        assert found.positive_share == pytest.approx(np.mean([label for label, _ in inside]))
    assert sum(found.count for found in bins) == len(rows)


@pytest.mark.parametrize("odd", [math.nan, 1.5, -0.1])
def test_scores_that_are_no_probabilities_have_no_calibration(odd: float) -> None:
    with pytest.raises(DataError, match="1 holdout scores are no probabilities"):
        calibration_bins(scored([1.0, 0.0], [0.5, odd]))
