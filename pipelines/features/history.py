"""What came before a moment: running statistics and running lists.

A *moment* is a row with a time ``at`` (microseconds since 1970): an event, or a query without
values, which asks for the features as of that time. Each moment sees the events with a smaller
``at`` only, so events of the same moment see nothing of each other. Training samples and serving
features are both moments, and so come from the same code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as sf
from pyspark.sql.types import StringType, StructType

from pipelines.features.schema import ITEM_ID, USER_GENRES, USER_ID, USER_RECENT_ITEMS

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


def with_recent_lists(moments: DataFrame) -> DataFrame:
    """Add each user's latest positive items and most frequent genres, instead of the genre list.

    ``user_rated_1..5``: distinct items, newest first; of the same moment, by item id.
    ``user_genre_1..5``: by the number of earlier positives with the genre, then by name.

    The moments must be partitioned by user. Each is looked at once, in the order of time; the
    state is a user's five latest items and genre counts, whatever the length of the history.
    """
    schema = StructType([f for f in moments.schema.fields if f.name != ITEM_GENRE_LIST])
    for name in USER_RECENT_ITEMS:
        schema = schema.add(name, moments.schema[ITEM_ID].dataType)
    for name in USER_GENRES:
        schema = schema.add(name, StringType())
    # Spark leaves out this sort where the rows are in that order already.
    return moments.sortWithinPartitions(USER_ID, AT).mapInArrow(_add_lists, schema)


class _History:
    """One user's positives so far, those of the current moment apart."""

    def __init__(self) -> None:
        self.recent: tuple[Any, ...] = (None,) * len(USER_RECENT_ITEMS)
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
            self.recent = (item, *others)[: len(USER_RECENT_ITEMS)]
            for genre in genres:
                self._counts[genre] = self._counts.get(genre, 0) + 1
        ranked = sorted(self._counts.items(), key=lambda entry: (-entry[1], entry[0]))
        top = [genre for genre, _ in ranked[: len(USER_GENRES)]]
        self.genres = (*top, *[None] * (len(USER_GENRES) - len(top)))
        self._pending.clear()
        return True


def _add_lists(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    history = _History()
    user = at = None
    for batch in batches:
        # One entry per state of a history, and for each row the number of the state that it sees.
        states = [(*history.recent, *history.genres)]
        seen: list[int] = []
        columns = (batch[name].to_pylist() for name in (USER_ID, AT, ITEM_ID, IS_POSITIVE))
        for row_user, row_at, item, is_positive, genres in zip(
            *columns, batch[ITEM_GENRE_LIST].to_pylist(), strict=True
        ):
            if row_user != user:
                history = _History()
                states.append((*history.recent, *history.genres))
            elif row_at != at and history.settle():
                states.append((*history.recent, *history.genres))
            user, at = row_user, row_at
            seen.append(len(states) - 1)
            if is_positive:
                history.add(item, genres)
        yield _with_states(batch, states, seen)


def _with_states(
    batch: pa.RecordBatch, states: list[tuple[Any, ...]], seen: list[int]
) -> pa.RecordBatch:
    item_type = batch.schema.field(ITEM_ID).type
    types = [item_type] * len(USER_RECENT_ITEMS) + [pa.string()] * len(USER_GENRES)
    rows = pa.array(seen, pa.int32())
    kept = batch.drop_columns([ITEM_GENRE_LIST])
    lists = [
        pa.array(values, data_type).take(rows)
        for values, data_type in zip(zip(*states, strict=True), types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(
        [*kept.columns, *lists], [*kept.schema.names, *USER_RECENT_ITEMS, *USER_GENRES]
    )
