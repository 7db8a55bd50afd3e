"""Metrics of scores between 0 and 1 against labels 0 and 1, and the baselines beside them.

The baselines are what any model must beat: the base rate for everybody, and the smoothed means of
user and item, which already carry much of what a click model finds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.errors import DataError
from pipelines.features.schema import IS_HOLDOUT, ITEM_ID, LABEL, USER_ID

#: Columns of the samples that say which slice a row is in: events before it.
USER_COUNT, ITEM_COUNT = "user_rating_count", "item_rating_count"

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.models.base import CalibrationBin, Metric

#: A mean counts as if it had this many more labels at the base rate.
_SMOOTHING = 5.0
#: Probabilities are kept this far from 0 and 1, or one bold mistake would make log-loss infinite.
_CLIP = 1e-7
#: The sum of two means may leave 0 to 1; a baseline that is sure of itself would be a straw man.
_BASELINE_RANGE = (0.02, 0.98)
_MERGE_AFTER_BATCHES = 64
#: A user with fewer earlier events is new, an item with fewer is rare.
_NEW_USER_EVENTS = 30
_RARE_ITEM_EVENTS = 5
#: With fewer rows a slice says more about chance than about a model.
_MIN_SLICE_ROWS = 50
_CALIBRATION_BINS = 10
_HISTOGRAM_BINS = 20
_LOWER_IS_BETTER = ("log_loss", "calibration_error")


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


def calibration_error(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Return the expected calibration error of probabilities [n] for labels [n].

    That is the mean distance between mean score and mean label over ten bins of equally many rows,
    by score (Naeini et al. 2015, with bins of equal mass).
    """
    order = np.argsort(scores, kind="stable")
    bins = [rows for rows in np.array_split(order, _CALIBRATION_BINS) if len(rows)]
    return sum(
        len(rows) / len(order) * abs(float(labels[rows].mean() - scores[rows].mean()))
        for rows in bins
    )


@dataclass(frozen=True)
class Scored:
    """Scores of holdout rows, all [n] float64.

    `user_counts` and `item_counts` are how many events the row's user and item had before it.
    """

    labels: NDArray[np.float64]
    scores: NDArray[np.float64]
    user_counts: NDArray[np.float64]
    item_counts: NDArray[np.float64]

    @classmethod
    def of(cls, rows: pa.Table, scores: NDArray[Any]) -> Scored:
        """Return scores of `rows`, which have a label and both counts."""
        columns = (rows[name].to_numpy() for name in (LABEL, USER_COUNT, ITEM_COUNT))
        labels, users, items = (column.astype(np.float64) for column in columns)
        return cls(labels, np.asarray(scores, np.float64), users, items)

    @classmethod
    def concatenate(cls, parts: Sequence[Scored]) -> Scored:
        """Return all rows of `parts`, which may be none."""
        names = [f.name for f in fields(cls)]
        empty = np.empty(0)
        return cls(*(np.concatenate([empty, *(getattr(p, n) for p in parts)]) for n in names))

    def slices(self) -> dict[str, Scored]:
        """Return new users' rows and rare items' rows, by name, where there are enough of them."""
        masks = {
            "new_users": self.user_counts < _NEW_USER_EVENTS,
            "rare_items": self.item_counts < _RARE_ITEM_EVENTS,
        }
        found = {
            name: Scored(*(getattr(self, f.name)[mask] for f in fields(self)))
            for name, mask in masks.items()
            if mask.sum() >= _MIN_SLICE_ROWS
        }
        # Of one label alone there is no AUC.
        return {n: part for n, part in found.items() if 0 < part.labels.mean() < 1}

    def values(self) -> dict[str, float]:
        """Return AUC, log-loss and calibration error of these rows."""
        return {
            "auc": auc(self.labels, self.scores),
            "log_loss": log_loss(self.labels, self.scores),
            "calibration_error": calibration_error(self.labels, self.scores),
        }


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
    """What the baselines make of the holdout; `base_rate` is the mean label of training rows.

    `values` has the names of :func:`score_values`, and below them a value for each baseline.
    """

    base_rate: float
    values: dict[str, dict[str, float]]


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

    columns = [USER_ID, ITEM_ID, LABEL, USER_COUNT, ITEM_COUNT]
    parts = []
    for batch in samples.to_batches(columns=columns, filter=holdout):
        summed = means[USER_ID](batch[USER_ID]) + means[ITEM_ID](batch[ITEM_ID]) - base_rate
        parts.append(Scored.of(pa.table(batch), np.clip(summed, *_BASELINE_RANGE)))
    by_means = Scored.concatenate(parts)
    label = by_means.labels
    if len(label) == 0:
        raise DataError(f"{samples_path}: the holdout is empty")
    if label.min() == label.max():
        raise DataError(f"{samples_path}: all {len(label)} holdout labels are {label[0]:g}")
    constant = replace(by_means, scores=np.full(len(label), base_rate))
    measured = {
        "constant": score_values(constant),
        "user_item_mean": score_values(by_means),
    }
    return ScoreBaselines(
        base_rate=base_rate,
        values={
            name: {baseline: values[name] for baseline, values in measured.items()}
            for name in measured["constant"]
        },
    )


def score_values(scored: Scored) -> dict[str, float]:
    """Return AUC, log-loss and calibration error of the holdout, and of its slices.

    Those of a slice end in its name, as in ``auc_new_users``: rows of users with fewer than 30
    earlier events, and of items with fewer than 5. Slices of fewer than 50 rows, or with only one
    label, are left out.

    Raises:
        DataError: a score, and so a metric, is not finite.
    """
    odd = int((~np.isfinite(scored.scores)).sum())
    if odd:
        raise DataError(f"{odd} holdout scores are not finite")
    values = scored.values()
    for name, part in scored.slices().items():
        values |= {f"{metric}_{name}": value for metric, value in part.values().items()}
    return require_finite(values)


def score_metrics(values: dict[str, float], baselines: ScoreBaselines) -> dict[str, Metric]:
    """Return what :func:`score_values` measured, with the baselines beside it."""
    from pipelines.models.base import Metric

    return {
        name: Metric(
            value=value,
            baselines=baselines.values.get(name, {}),
            higher_is_better=not name.startswith(_LOWER_IS_BETTER),
        )
        for name, value in values.items()
    }


def calibration_bins(scored: Scored) -> list[CalibrationBin]:
    """Return the holdout's predictions in 20 bins of equal width from 0 to 1, also the empty ones.

    Raises:
        DataError: a score is not finite, or no probability.
    """
    from pipelines.models.base import CalibrationBin

    edges = np.arange(_HISTOGRAM_BINS + 1) / _HISTOGRAM_BINS
    odd = int((~((scored.scores >= 0) & (scored.scores <= 1))).sum())
    if odd:
        raise DataError(f"{odd} holdout scores are no probabilities")
    places = np.minimum(np.searchsorted(edges, scored.scores, side="right"), _HISTOGRAM_BINS) - 1
    sums = [
        np.bincount(places, weights, minlength=_HISTOGRAM_BINS)
        for weights in (None, scored.scores, scored.labels)
    ]
    return [
        CalibrationBin(
            lower=float(edges[place]),
            upper=float(edges[place + 1]),
            count=int(count),
            mean_score=float(scores / count) if count else None,
            positive_share=float(labels / count) if count else None,
        )
        for place, (count, scores, labels) in enumerate(zip(*sums, strict=True))
    ]
