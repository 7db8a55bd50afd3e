"""The point-in-time samples as the Keras rankers read them, and what is learned of them first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.evaluation.scores import label_sums
from pipelines.features.schema import (
    GENRES,
    IS_HOLDOUT,
    IS_VALIDATION,
    ITEM_ID,
    LABEL,
    NUMBERS,
    USER_HISTORY,
    USER_ID,
)
from pipelines.online.ranking_inputs import TEXT_INPUTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Rows that are held at once.
WINDOW_ROWS = 262_144

HOLDOUT = ds.field(IS_HOLDOUT)
VALIDATION = ds.field(IS_VALIDATION)
TRAINING = ~HOLDOUT
#: What a fit learns from whose progress is watched on VALIDATION.
FITTING = ~HOLDOUT & ~VALIDATION

#: Raw inputs by name: [n] text (object), [n] float32, or [n, length] text.
Columns = dict[str, Any]


@dataclass(frozen=True)
class Statistics:
    """What the preprocessing learns from the chosen samples.

    The vocabularies are ordered by frequency, then by text; they have the ids' own type. `mean`
    and `variance` are [len(NUMBERS)] float64, after ``log1p`` for counts and over the values that
    are there.
    """

    users: pa.Array
    items: pa.Array
    genres: pa.Array
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


def is_count(name: str) -> bool:
    """Tell whether a number is a count, whose logarithm is what matters."""
    return name.endswith("_count")


def raw_columns(rows: pa.Table, names: Sequence[str]) -> Columns:
    """Return raw inputs as a client sends them: '' and NaN for what is missing.

    ``user_history`` is padded with '' to the longest one of `rows`, at least to one place.
    """
    columns: Columns = {}
    for name in names:
        if name == USER_HISTORY:
            lists = rows[name].to_pylist()
            longest = max(1, *(len(ids) for ids in lists)) if lists else 1
            padded = [[*map(str, ids), *[""] * (longest - len(ids))] for ids in lists]
            columns[name] = np.array(padded, dtype=object).reshape(len(lists), longest)
        elif name in TEXT_INPUTS:
            text = pc.fill_null(pc.cast(rows[name], pa.string()), "")
            columns[name] = text.to_numpy(zero_copy_only=False).astype(object)
        else:
            number = pc.fill_null(pc.cast(rows[name], pa.float32()), np.nan)
            columns[name] = number.to_numpy(zero_copy_only=False)
    return columns


class Samples:
    """The point-in-time samples below one path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._dataset = ds.dataset(path, format="parquet")

    def count(self, chosen: ds.Expression | None) -> int:
        """Return the number of chosen rows."""
        return int(self._dataset.count_rows(filter=chosen))

    def has_both_labels(self, chosen: ds.Expression) -> bool:
        """Tell whether there is a positive and a negative among the chosen rows."""
        positive = ds.field(LABEL) == 1.0
        return self.count(chosen & positive) > 0 and self.count(chosen & ~positive) > 0

    def tables(
        self,
        chosen: ds.Expression | None,
        columns: Sequence[str],
        rows: int = WINDOW_ROWS,
    ) -> Iterator[pa.Table]:
        """Yield the chosen rows in the order of the files, about `rows` at once."""
        parts: list[pa.RecordBatch] = []
        held = 0
        # The scanner reads ahead by default as much as several windows.
        scanned = self._dataset.to_batches(
            columns=list(columns), filter=chosen, batch_readahead=2, fragment_readahead=1
        )
        for batch in scanned:
            parts.append(batch)
            held += batch.num_rows
            if held >= rows:
                yield pa.Table.from_batches(parts)
                parts, held = [], 0
        if held:
            yield pa.Table.from_batches(parts)

    def head(self, size: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return the raw features of `size` rows, evenly spread over the files."""
        count = self.count(None)
        rows = np.unique(np.linspace(0, count - 1, num=min(size, count), dtype=np.int64))
        table = self._dataset.take(pa.array(rows), columns=list(columns))
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
    ) -> pa.Array:
        parts = []
        for column in columns:
            sums = label_sums(self._dataset, column, chosen)
            parts.append(sums.select([column, "label_count"]).rename_columns(["word", "count"]))
        counts = pa.concat_tables(parts).group_by("word").aggregate([("count", "sum")])
        text = pc.cast(counts["word"], pa.string())
        # A null compares as null, and is left out like the empty text.
        known = counts.append_column("text", text).filter(pc.not_equal(text, ""))
        ordered = known.sort_by([("count_sum", "descending"), ("text", "ascending")])
        return ordered["word"].slice(0, size).combine_chunks()

    def _moments(
        self, chosen: ds.Expression | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        count, total, squares = (np.zeros(len(NUMBERS)) for _ in range(3))
        for batch in self.tables(chosen, NUMBERS):
            for i, name in enumerate(NUMBERS):
                values = batch[name].drop_null().to_numpy().astype(np.float64)
                values = np.log1p(values) if is_count(name) else values
                count[i] += len(values)
                total[i] += values.sum()
                squares[i] += np.square(values).sum()
        mean = total / np.maximum(count, 1)
        return mean, np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0)
