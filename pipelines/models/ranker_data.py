"""Samples for the Keras rankers: raw model inputs from Parquet, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.evaluation.scores import label_sums
from pipelines.features.schema import GENRES, IS_HOLDOUT, ITEM_ID, LABEL, NUMBERS, USER_ID
from pipelines.online.ranking_inputs import INPUTS, TEXT_INPUTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Rows that are shuffled together: a window that moves over the files.
_SHUFFLED_ROWS = 262_144

TRAINING = ~ds.field(IS_HOLDOUT)
HOLDOUT = ds.field(IS_HOLDOUT)

#: Raw inputs by name: [n] text (object) or [n] float32.
Columns = dict[str, Any]


@dataclass(frozen=True)
class Statistics:
    """What the preprocessing learns from the chosen samples.

    The vocabularies are ordered by frequency, then by text. `mean` and `variance` are
    [len(NUMBERS)] float64, after ``log1p`` for counts and over the values that are there.
    """

    users: list[str]
    items: list[str]
    genres: list[str]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


def is_count(name: str) -> bool:
    """Tell whether a number is a count, whose logarithm is what matters."""
    return name.endswith("_count")


def raw_columns(rows: pa.RecordBatch | pa.Table) -> Columns:
    """Return the model's raw inputs: ids and genres as text, '' and NaN for what is missing."""
    columns: Columns = {}
    for name in INPUTS:
        if name in TEXT_INPUTS:
            text = pc.fill_null(pc.cast(rows[name], pa.string()), "")
            columns[name] = text.to_numpy(zero_copy_only=False).astype(object)
        else:
            number = pc.fill_null(pc.cast(rows[name], pa.float32()), np.nan)
            columns[name] = number.to_numpy(zero_copy_only=False)
    return columns


class Samples:
    """The point-in-time samples below one path."""

    def __init__(self, path: str) -> None:
        self._dataset = ds.dataset(path, format="parquet")

    def count(self, chosen: ds.Expression | None) -> int:
        """Return the number of chosen rows."""
        return int(self._dataset.count_rows(filter=chosen))

    def batches(
        self, chosen: ds.Expression | None, size: int, shuffle_seed: int | None = None
    ) -> Iterator[tuple[Columns, NDArray[np.float32]]]:
        """Yield raw columns and labels of at most `size` rows.

        Rows come in the order of the files, or shuffled within windows; the same seed gives the
        same order. A window's last batch may be smaller.
        """
        rng = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
        for window in self._windows(chosen):
            columns = raw_columns(window)
            labels = window[LABEL].to_numpy().astype(np.float32)
            order = np.arange(len(labels)) if rng is None else rng.permutation(len(labels))
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                yield {name: column[rows] for name, column in columns.items()}, labels[rows]

    def _windows(self, chosen: ds.Expression | None) -> Iterator[pa.Table]:
        parts: list[pa.RecordBatch] = []
        rows = 0
        for batch in self._dataset.to_batches(columns=[*INPUTS, LABEL], filter=chosen):
            parts.append(batch)
            rows += batch.num_rows
            if rows >= _SHUFFLED_ROWS:
                yield pa.Table.from_batches(parts)
                parts, rows = [], 0
        if rows:
            yield pa.Table.from_batches(parts)

    def head(self, size: int) -> list[dict[str, Any]]:
        """Return the raw features of `size` rows, evenly spread over the files."""
        count = self.count(None)
        rows = np.unique(np.linspace(0, count - 1, num=min(size, count), dtype=np.int64))
        table = self._dataset.take(pa.array(rows), columns=list(INPUTS))
        return [dict(row) for row in table.to_pylist()]

    def statistics(self, chosen: ds.Expression | None, max_vocabulary: int) -> Statistics:
        """Learn vocabularies of at most `max_vocabulary` words, and the numbers' moments."""
        mean, variance = self._moments(chosen)
        return Statistics(
            users=self._vocabulary((USER_ID,), chosen, max_vocabulary),
            items=self._vocabulary((ITEM_ID,), chosen, max_vocabulary),
            genres=self._vocabulary(GENRES, chosen, max_vocabulary),
            mean=mean,
            variance=variance,
        )

    def _vocabulary(
        self, columns: tuple[str, ...], chosen: ds.Expression | None, size: int
    ) -> list[str]:
        counts: dict[str, int] = {}
        for column in columns:
            sums = label_sums(self._dataset, column, chosen)
            words = pc.cast(sums[column], pa.string()).to_pylist()
            for word, count in zip(words, sums["label_count"].to_pylist(), strict=True):
                if word:
                    counts[word] = counts.get(word, 0) + count
        return sorted(counts, key=lambda word: (-counts[word], word))[:size]

    def _moments(
        self, chosen: ds.Expression | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        count, total, squares = (np.zeros(len(NUMBERS)) for _ in range(3))
        for batch in self._dataset.to_batches(columns=list(NUMBERS), filter=chosen):
            for i, name in enumerate(NUMBERS):
                values = batch[name].drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
                values = np.log1p(values) if is_count(name) else values
                count[i] += len(values)
                total[i] += values.sum()
                squares[i] += np.square(values).sum()
        mean = total / np.maximum(count, 1)
        return mean, np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0)
