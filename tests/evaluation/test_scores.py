"""AUC and log-loss against their definitions, and the baselines on rows worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.evaluation.scores import auc, log_loss, score_baselines, score_metrics, score_values


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
    pq.write_table(pa.table(arrays, names), folder / "part-0.parquet")
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
    assert baselines.auc == {"constant": 0.5, "user_item_mean": 1.0}
    assert baselines.log_loss["user_item_mean"] == pytest.approx(log_loss(labels, scores))
    assert baselines.log_loss["constant"] == pytest.approx(log_loss(labels, np.full(3, base)))


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


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    baselines = score_baselines(samples(tmp_path, ROWS))
    labels = np.array([1.0, 0.0, 1.0])
    metrics = score_metrics(score_values(labels, np.array([0.9, 0.1, 0.2])), baselines)
    assert metrics["auc"].value == 1.0
    assert not metrics["log_loss"].higher_is_better
    with pytest.raises(DataError, match="1 holdout scores are not finite"):
        score_values(labels, np.array([0.9, math.nan, 0.2]))
