"""Metrics of scores between 0 and 1 against labels 0 and 1, and the baselines beside them.

The baselines are what any model must beat: the base rate for everybody, and the smoothed means of
user and item, which already carry much of what a click model finds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.errors import DataError
from pipelines.features.schema import IS_HOLDOUT, ITEM_ID, LABEL, USER_ID

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.models.base import Metric

#: A mean counts as if it had this many more labels at the base rate.
_SMOOTHING = 5.0
#: Probabilities are kept this far from 0 and 1, or one bold mistake would make log-loss infinite.
_CLIP = 1e-7
#: The sum of two means may leave 0 to 1; a baseline that is sure of itself would be a straw man.
_BASELINE_RANGE = (0.02, 0.98)
_MERGE_AFTER_BATCHES = 64


def require_finite(metrics: dict[str, float]) -> dict[str, float]:
    """Return `metrics` unchanged.

    Raises:
        DataError: a value is NaN or infinite; it is named.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise DataError(f"{name} is {value}: the holdout is too small or the fit diverged")
    return metrics


def auc(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve, exact also with ties (Mann-Whitney's U).

    Both are [n]; labels are 0 or 1. NaN if all labels are equal.
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return math.nan
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    # Equal scores share the mean of their ranks.
    ranks = np.cumsum(sizes) - (sizes - 1) / 2
    rank_sum = float(ranks[group][labels == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def log_loss(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Return the mean negative log-likelihood in nats of labels [n] under probabilities [n]."""
    clipped = np.clip(scores, _CLIP, 1 - _CLIP)
    return float(-np.mean(labels * np.log(clipped) + (1 - labels) * np.log1p(-clipped)))


@dataclass(frozen=True)
class _Means:
    """Smoothed mean label of each id; an unknown id has the base rate."""

    ids: pa.Array
    means: NDArray[np.float64]
    base_rate: float

    def __call__(self, ids: pa.Array) -> NDArray[np.float64]:
        rows = pc.index_in(ids, value_set=self.ids)
        found = rows.is_valid().to_numpy(zero_copy_only=False)
        values = np.full(len(ids), self.base_rate)
        values[found] = self.means[rows.drop_null().to_numpy()]
        return values


def label_sums(samples: ds.Dataset, column: str, chosen: ds.Expression | None) -> pa.Table:
    """Return `column`, label_sum and label_count of the `chosen` rows, read batch by batch."""
    parts: list[pa.Table] = []
    for batch in samples.to_batches(columns=[column, LABEL], filter=chosen):
        sums = pa.table(batch).group_by(column).aggregate([(LABEL, "sum"), (LABEL, "count")])
        parts.append(sums)
        if len(parts) == _MERGE_AFTER_BATCHES:
            parts = [_merge(parts, column)]
    return _merge(parts, column)


def _merge(parts: list[pa.Table], column: str) -> pa.Table:
    sums = [("label_sum", "sum"), ("label_count", "sum")]
    merged = pa.concat_tables(parts).group_by(column).aggregate(sums)
    return merged.rename_columns([column, "label_sum", "label_count"])


@dataclass(frozen=True)
class ScoreBaselines:
    """What the baselines make of the holdout; `base_rate` is the mean label of training rows."""

    base_rate: float
    auc: dict[str, float]
    log_loss: dict[str, float]


def score_baselines(samples_path: str) -> ScoreBaselines:
    """Measure the baselines: learned from training samples, measured on those of the holdout.

    ``constant`` is the base rate for all; ``user_item_mean`` the user's smoothed mean label plus
    the item's, minus the base rate. Reads in constant memory, but for one pair of numbers a user,
    an item and a holdout row.

    Raises:
        DataError: there are no training or holdout samples, or one of them has only one label.
    """
    samples = ds.dataset(samples_path, format="parquet")
    training, holdout = ~ds.field(IS_HOLDOUT), ds.field(IS_HOLDOUT)
    if samples.count_rows(filter=training) == 0:
        raise DataError(f"{samples_path}: no training samples")
    sums = {column: label_sums(samples, column, training) for column in (USER_ID, ITEM_ID)}
    positives, count = (
        pc.sum(sums[USER_ID][name]).as_py() for name in ("label_sum", "label_count")
    )
    base_rate = positives / count
    if base_rate in (0.0, 1.0):
        raise DataError(f"{samples_path}: all {count} training labels are {base_rate:g}")

    means = {}
    for column, table in sums.items():
        total, rows = (table[name].to_numpy() for name in ("label_sum", "label_count"))
        smoothed = (total + _SMOOTHING * base_rate) / (rows + _SMOOTHING)
        means[column] = _Means(table[column].combine_chunks(), smoothed, base_rate)

    labels, scores = [np.empty(0)], [np.empty(0)]
    for batch in samples.to_batches(columns=[USER_ID, ITEM_ID, LABEL], filter=holdout):
        labels.append(batch[LABEL].to_numpy())
        scores.append(means[USER_ID](batch[USER_ID]) + means[ITEM_ID](batch[ITEM_ID]) - base_rate)
    label, score = np.concatenate(labels), np.concatenate(scores)
    if len(label) == 0:
        raise DataError(f"{samples_path}: the holdout is empty")
    if label.min() == label.max():
        raise DataError(f"{samples_path}: all {len(label)} holdout labels are {label[0]:g}")
    constant = np.full(len(label), base_rate)
    clipped = np.clip(score, *_BASELINE_RANGE)
    return ScoreBaselines(
        base_rate=base_rate,
        auc={"constant": 0.5, "user_item_mean": auc(label, score)},
        log_loss={
            "constant": log_loss(label, constant),
            "user_item_mean": log_loss(label, clipped),
        },
    )


def score_values(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> dict[str, float]:
    """Return AUC and log-loss of holdout scores [n].

    Raises:
        DataError: a score, and so a metric, is not finite.
    """
    if not np.isfinite(scores).all():
        raise DataError(f"{int((~np.isfinite(scores)).sum())} holdout scores are not finite")
    return require_finite({"auc": auc(labels, scores), "log_loss": log_loss(labels, scores)})


def score_metrics(values: dict[str, float], baselines: ScoreBaselines) -> dict[str, Metric]:
    """Return what :func:`score_values` measured, with the baselines beside it."""
    from pipelines.models.base import Metric

    return {
        "auc": Metric(value=values["auc"], baselines=baselines.auc),
        "log_loss": Metric(
            value=values["log_loss"], baselines=baselines.log_loss, higher_is_better=False
        ),
    }
