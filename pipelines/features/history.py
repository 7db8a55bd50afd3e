"""What came before a moment: running statistics and running lists.

A *moment* is a row with a time ``at`` (microseconds since 1970): an event, or a query without
values, which asks for the features as of that time. Each moment sees the events with a smaller
``at`` only, so events of the same moment see nothing of each other. Training samples and serving
features are both moments, and so come from the same code.

What is known of a key at a moment is a fold over its earlier events, one after the other in
:func:`in_order`. A fold can stop at a query, whose row carries the sums and lists so far, and go on
from there: a *start*, a row before the events that follow, with what the query had. Going on gives
what one fold over everything gives, to the last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf
from pyspark.sql.types import ArrayType, DataType, LongType, MapType, StringType, StructType

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
#: Columns of a start, and of a query: a user's latest items, and positives by genre.
RECENT_ITEMS = "recent_items"
GENRE_COUNTS = "genre_counts"

#: What statistics are made of, and go on from: fields of the column :func:`sums_of`.
SUMS = {
    "count": "bigint",
    "total": "double",
    "distance": "double",
    "squares": "double",
    "pivot": "double",
}
_SUMS_TYPE = f"struct<{','.join(f'{name}:{kind}' for name, kind in SUMS.items())}>"


def in_order(moments: DataFrame, key: str, *ties: str) -> DataFrame:
    """Bring the moments of a key together, sorted by time, those of one moment by `ties`.

    Sums of floating-point numbers depend on their order: with ties that tell all events of a
    moment apart, the same events have the same sums.
    """
    return moments.repartition(key).sortWithinPartitions(key, AT, *ties)


def sums_of(prefix: str) -> str:
    """Return the column that carries what :func:`with_statistics` goes on from."""
    return f"{prefix}_sums"


def with_statistics(moments: DataFrame, key: str, values: dict[str, str]) -> DataFrame:
    """Add count, mean and sample standard deviation of what each key had before.

    `values` maps a column to the prefix of the names of its statistics. Nulls don't count; the
    mean of nothing and the deviation of fewer than two are null. :func:`sums_of` the prefix is
    what they are made of; a start has that column already, and no value.

    The moments must be :func:`in_order` of the key. The frames only grow, so Spark computes each
    in one pass over the key's moments, in their order.
    """
    by_time = Window.partitionBy(key).orderBy(AT)
    before = by_time.rangeBetween(Window.unboundedPreceding, -1)
    so_far = by_time.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    columns: dict[str, Column] = {}
    for value, prefix in values.items():
        start = sums_of(prefix)
        if start not in moments.columns:
            moments = moments.withColumn(start, sf.lit(None).cast(_SUMS_TYPE))
        # Squares of the distance from the first value: those of the values themselves would lose
        # the variance of what lies close together and far from zero, such as years.
        pivot = sf.first(sf.coalesce(f"{start}.pivot", value), ignorenulls=True).over(so_far)
        moments = moments.withColumn(f"{prefix}_pivot", pivot.cast("double"))
        distance = sf.col(value) - sf.col(f"{prefix}_pivot")
        terms = {
            "count": sf.when(sf.col(value).isNotNull(), sf.lit(1)).otherwise(0).cast("bigint"),
            "total": sf.col(value).cast("double"),
            "distance": distance,
            "squares": distance * distance,
        }
        sums = {
            name: sf.sum(sf.coalesce(f"{start}.{name}", term)).over(before)
            for name, term in terms.items()
        }
        sums["count"] = sf.coalesce(sums["count"], sf.lit(0))
        columns[start] = sf.struct(
            *(column.alias(name) for name, column in sums.items()),
            sf.col(f"{prefix}_pivot").alias("pivot"),
        )
    moments = moments.withColumns(columns)
    return moments.withColumns(
        {
            name: column
            for prefix in values.values()
            for name, column in _statistics(prefix, sf.col(sums_of(prefix))).items()
        }
    ).drop(*(f"{prefix}_pivot" for prefix in values.values()))


def _statistics(prefix: str, sums: Column) -> dict[str, Column]:
    count, distance = sums["count"], sums["distance"]
    # Rounding may leave less than nothing of a variance of nothing.
    spread = sf.greatest(sf.lit(0.0), sums["squares"] - distance * distance / count)
    return {
        f"{prefix}_count": count,
        f"{prefix}_mean": sf.when(count > 0, sums["total"] / count),
        f"{prefix}_stddev": sf.when(count > 1, sf.sqrt(spread / (count - 1))),
    }


def with_recent_lists(moments: DataFrame, history_length: int) -> DataFrame:
    """Add each user's latest positive items and most frequent genres, instead of the genre list.

    ``user_history``: at most `history_length` distinct items, newest first; of the same moment,
    by item id. ``user_rated_1..5``: the first five of them, each in a column of its own.
    ``user_genre_1..5``: by the number of earlier positives with the genre, then by name.

    Where the moments have the columns of :func:`list_columns`, a user's lists start from those of
    a start, and each query has there what it saw.

    The moments must be :func:`in_order` of the users. Each is looked at once; the state is a
    user's latest items and genre counts, whatever the length of the history.
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


def list_columns(item_id: DataType) -> dict[str, DataType]:
    """Return the columns that carry what :func:`with_recent_lists` goes on from."""
    return {RECENT_ITEMS: ArrayType(item_id), GENRE_COUNTS: MapType(StringType(), LongType())}


class _Start(NamedTuple):
    """What a user's lists go on from: latest items, and how many positives had each genre."""

    recent: list[Any]
    counts: list[tuple[str, int]]


class _History:
    """One user's positives so far, those of the current moment apart."""

    def __init__(self, length: int, start: _Start | None) -> None:
        self.recent: list[Any] = start.recent if start else []
        self.counts = dict(start.counts) if start else {}
        self._kept = max(length, len(USER_RECENT_ITEMS))
        self.genres = self._top()
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
                self.counts[genre] = self.counts.get(genre, 0) + 1
        self.genres = self._top()
        self._pending.clear()
        return True

    def _top(self) -> tuple[str | None, ...]:
        ranked = sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0]))
        top = [genre for genre, _ in ranked[: len(USER_GENRES)]]
        return (*top, *[None] * (len(USER_GENRES) - len(top)))


def _add_lists(batches: Iterator[pa.RecordBatch], length: int) -> Iterator[pa.RecordBatch]:
    history = _History(length, None)
    user = at = None
    for batch in batches:
        starts = _starts(batch)
        # One entry per state of a history, and for each row the number of the state that it sees.
        states = [(history.recent, history.genres)]
        seen: list[int] = []
        # By row, what a query leaves to go on from.
        left: dict[int, _Start] = {}
        columns = (batch[name].to_pylist() for name in (USER_ID, AT, ITEM_ID, IS_POSITIVE))
        for row_user, row_at, item, is_positive, genres in zip(
            *columns, batch[ITEM_GENRE_LIST].to_pylist(), strict=True
        ):
            if row_user != user:
                history = _History(length, starts.get(row_user))
                states.append((history.recent, history.genres))
            elif row_at != at and history.settle():
                states.append((history.recent, history.genres))
            user, at = row_user, row_at
            seen.append(len(states) - 1)
            if is_positive:
                history.add(item, genres)
            elif is_positive is None:
                left[len(seen) - 1] = _Start(history.recent, [*history.counts.items()])
        yield _with_states(batch, states, seen, left, length)


def _starts(batch: pa.RecordBatch) -> dict[Any, _Start]:
    """Return the starts among the rows, by user; each is the first row of its user."""
    if RECENT_ITEMS not in batch.schema.names:
        return {}
    rows = batch.select([USER_ID, RECENT_ITEMS, GENRE_COUNTS]).filter(
        batch[RECENT_ITEMS].is_valid()
    )
    columns = (column.to_pylist() for column in rows.columns)
    return {user: _Start(recent, counts) for user, recent, counts in zip(*columns, strict=True)}


def _with_states(
    batch: pa.RecordBatch,
    states: list[tuple[list[Any], tuple[str | None, ...]]],
    seen: list[int],
    left: dict[int, _Start],
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
    if RECENT_ITEMS in kept.schema.names:
        for name, part in ((RECENT_ITEMS, "recent"), (GENRE_COUNTS, "counts")):
            place = kept.schema.get_field_index(name)
            values: list[Any] = [None] * len(kept)
            for row, start in left.items():
                values[row] = getattr(start, part)
            field = kept.schema.field(place)
            kept = kept.set_column(place, field, pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(
        [*kept.columns, *(column.take(rows) for column in columns.values())],
        [*kept.schema.names, *columns],
    )
