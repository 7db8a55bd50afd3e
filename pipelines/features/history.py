"""What came before a moment: running statistics and running lists.

A *moment* is a row with a time ``at`` (microseconds since 1970): an event, or a query without
values, which asks for the features as of that time. Each moment sees the events with a smaller
``at`` only, so events of the same moment see nothing of each other. Training samples and serving
features are both moments, and so come from the same code.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as sf
from pyspark.sql.types import ArrayType, StringType, StructType

from pipelines.features.schema import (
    ITEM_ID,
    USER_GENRES,
    USER_HISTORY,
    USER_ID,
    USER_RECENT_ITEMS,
)

AT = "at"
#: Columns that :func:`with_recent_lists` reads: whether an event is a positive, the item's genres.
IS_POSITIVE = "is_positive"
ITEM_GENRE_LIST = "item_genre_list"


def with_statistics(moments: DataFrame, key: str, values: dict[str, str]) -> DataFrame:
    """Add count, mean and sample standard deviation of what each key had before.

    `values` maps a column to the prefix of the names of its statistics. Nulls don't count; the
    mean of nothing and the deviation of fewer than two are null. The frames only grow, so Spark
    computes each in one pass over the key's moments.
    """
    before = Window.partitionBy(key).orderBy(AT).rangeBetween(Window.unboundedPreceding, -1)
    columns = {}
    for value, prefix in values.items():
        columns[f"{prefix}_count"] = sf.count(value).over(before)
        columns[f"{prefix}_mean"] = sf.avg(value).over(before)
        columns[f"{prefix}_stddev"] = sf.stddev_samp(value).over(before)
    return moments.withColumns(columns)


def with_recent_lists(moments: DataFrame, history_length: int) -> DataFrame:
    """Add each user's latest positive items and most frequent genres, instead of the genre list.

    ``user_history``: at most `history_length` distinct items, newest first; of the same moment,
    by item id. ``user_rated_1..5``: the first five of them, each in a column of its own.
    ``user_genre_1..5``: by the number of earlier positives with the genre, then by name.

    The moments must be partitioned by user. Each is looked at once, in the order of time; the
    state is a user's latest items and genre counts, whatever the length of the history.
    """
    schema = StructType([f for f in moments.schema.fields if f.name != ITEM_GENRE_LIST])
    for name in USER_RECENT_ITEMS:
        schema = schema.add(name, moments.schema[ITEM_ID].dataType)
    for name in USER_GENRES:
        schema = schema.add(name, StringType())
    schema = schema.add(USER_HISTORY, ArrayType(moments.schema[ITEM_ID].dataType))
    add_lists = functools.partial(_add_lists, length=history_length)
    # Spark leaves out this sort where the rows are in that order already.
    return moments.sortWithinPartitions(USER_ID, AT).mapInArrow(add_lists, schema)


class _History:
    """One user's positives so far, those of the current moment apart."""

    def __init__(self, length: int) -> None:
        self.recent: list[Any] = []
        self._kept = max(length, len(USER_RECENT_ITEMS))
        self.genres: tuple[str | None, ...] = (None,) * len(USER_GENRES)
        self._counts: dict[str, int] = {}
        self._pending: list[tuple[Any, list[str]]] = []

    def add(self, item: Any, genres: list[str] | None) -> None:
        """Note a positive; it is seen after the next :meth:`settle`."""
        self._pending.append((item, genres or []))

    def settle(self) -> bool:
        """Let later moments see what was added; returns whether anything was."""
        if not self._pending:
            return False
        # The smallest id of a moment goes last, and so to the front.
        for item, genres in sorted(self._pending, key=lambda p: p[0], reverse=True):
            others = [other for other in self.recent if other != item]
            self.recent = [item, *others][: self._kept]
            for genre in genres:
                self._counts[genre] = self._counts.get(genre, 0) + 1
        ranked = sorted(self._counts.items(), key=lambda entry: (-entry[1], entry[0]))
        top = [genre for genre, _ in ranked[: len(USER_GENRES)]]
        self.genres = (*top, *[None] * (len(USER_GENRES) - len(top)))
        self._pending.clear()
        return True


def _add_lists(batches: Iterator[pa.RecordBatch], length: int) -> Iterator[pa.RecordBatch]:
    history = _History(length)
    user = at = None
    for batch in batches:
        # One entry per state of a history, and for each row the number of the state that it sees.
        states = [(history.recent, history.genres)]
        seen: list[int] = []
        columns = (batch[name].to_pylist() for name in (USER_ID, AT, ITEM_ID, IS_POSITIVE))
        for row_user, row_at, item, is_positive, genres in zip(
            *columns, batch[ITEM_GENRE_LIST].to_pylist(), strict=True
        ):
            if row_user != user:
                history = _History(length)
                states.append((history.recent, history.genres))
            elif row_at != at and history.settle():
                states.append((history.recent, history.genres))
            user, at = row_user, row_at
            seen.append(len(states) - 1)
            if is_positive:
                history.add(item, genres)
        yield _with_states(batch, states, seen, length)


def _with_states(
    batch: pa.RecordBatch,
    states: list[tuple[list[Any], tuple[str | None, ...]]],
    seen: list[int],
    length: int,
) -> pa.RecordBatch:
    item_type = batch.schema.field(ITEM_ID).type
    rows = pa.array(seen, pa.int32())
    kept = batch.drop_columns([ITEM_GENRE_LIST])
    histories = [recent for recent, _ in states]
    columns = {
        **{
            name: pa.array([r[i] if i < len(r) else None for r in histories], item_type)
            for i, name in enumerate(USER_RECENT_ITEMS)
        },
        **{
            name: pa.array([genres[i] for _, genres in states], pa.string())
            for i, name in enumerate(USER_GENRES)
        },
        USER_HISTORY: pa.array([r[:length] for r in histories], pa.list_(item_type)),
    }
    return pa.RecordBatch.from_arrays(
        [*kept.columns, *(column.take(rows) for column in columns.values())],
        [*kept.schema.names, *columns],
    )
