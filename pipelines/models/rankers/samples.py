"""The point-in-time samples as the Keras rankers read them, and what is learned of them first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import and_
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

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
            columns[name] = _padded(rows[name])
        elif name in TEXT_INPUTS:
            text = pc.fill_null(pc.cast(rows[name], pa.string()), "")
            columns[name] = text.to_numpy(zero_copy_only=False).astype(object)
        else:
            number = pc.fill_null(pc.cast(rows[name], pa.float32()), np.nan)
            columns[name] = number.to_numpy(zero_copy_only=False)
    return columns


def _padded(lists: pa.ChunkedArray) -> NDArray[np.object_]:
    """Return lists as text [n, longest], with '' where a list is shorter."""
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    padded = np.full((len(lists), max(1, sizes.max(initial=1))), "", object)
    words = pc.cast(pc.list_flatten(lists), pa.string())
    padded[np.arange(padded.shape[1]) < sizes[:, None]] = words.to_numpy(zero_copy_only=False)
    return padded


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
        """Learn vocabularies of at most `max_vocabulary` words, and the numbers' moments.

        `chosen` may ask for nothing but marks: the samples are read once, for all their parts.
        """
        found = _PARTS if chosen is None else _PARTS.filter(chosen)
        parts = [self._learned[place] for place in found["place"].to_pylist()]
        count, total, squares = sum((part.sums for part in parts), np.zeros((3, len(NUMBERS))))
        mean = total / np.maximum(count, 1)

        def vocabulary(columns: tuple[str, ...]) -> pa.Array:
            return _vocabulary([table for p in parts for table in p.words[columns]], max_vocabulary)

        return Statistics(
            users=vocabulary(_USERS),
            items=vocabulary(_ITEMS),
            genres=vocabulary(GENRES),
            mean=mean,
            variance=np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0),
        )

    @cached_property
    def _learned(self) -> list[_Learned]:
        """What each of _PARTS says."""
        parts = [_Learned() for _ in range(len(_PARTS))]
        columns = (*_USERS, *_ITEMS, *GENRES, *NUMBERS, *_MARKS)
        for table in self.tables(None, columns):
            for part, marks in zip(parts, _PARTS.to_pylist(), strict=True):
                part.learn(table.filter(reduce(and_, (ds.field(m) == marks[m] for m in _MARKS))))
        return parts


_MARKS = (IS_HOLDOUT, IS_VALIDATION)
#: The parts that marks tell apart.
_PARTS = pa.table(
    {
        "place": range(4),
        IS_HOLDOUT: [False, False, True, True],
        IS_VALIDATION: [False, True, False, True],
    }
)
_USERS, _ITEMS = (USER_ID,), (ITEM_ID,)
_MERGE_AFTER = 64


class _Learned:
    """Words and moments of samples that have the same marks."""

    def __init__(self) -> None:
        #: By the columns of a vocabulary: words and how often each comes, in tables to be merged.
        self.words: dict[tuple[str, ...], list[pa.Table]] = {_USERS: [], _ITEMS: [], GENRES: []}
        #: Of the numbers that are there: how many, their sum and that of their squares.
        self.sums = np.zeros((3, len(NUMBERS)))

    def learn(self, rows: pa.Table) -> None:
        """Take in more rows."""
        for columns, tables in self.words.items():
            chunks = [chunk for name in columns for chunk in rows[name].chunks]
            words, count = pc.value_counts(
                pa.chunked_array(chunks, rows[columns[0]].type)
            ).flatten()
            tables.append(pa.table({"word": words, "count": count}))
            if len(tables) == _MERGE_AFTER:
                tables[:] = [_merged(tables)]
        for i, name in enumerate(NUMBERS):
            values = rows[name].drop_null().to_numpy().astype(np.float64)
            values = np.log1p(values) if is_count(name) else values
            self.sums[:, i] += len(values), values.sum(), np.square(values).sum()


def _merged(counts: list[pa.Table]) -> pa.Table:
    merged = pa.concat_tables(counts).group_by("word").aggregate([("count", "sum")])
    return merged.rename_columns(["word", "count"])


def _vocabulary(counts: list[pa.Table], size: int) -> pa.Array:
    """Return the `size` most frequent words; equally frequent ones in the order of their texts."""
    merged = _merged(counts)
    text = pc.cast(merged["word"], pa.string())
    # A null compares as null, and is left out like the empty text.
    known = merged.append_column("text", text).filter(pc.not_equal(text, ""))
    ordered = known.sort_by([("count", "descending"), ("text", "ascending")])
    return ordered["word"].slice(0, size).combine_chunks()
