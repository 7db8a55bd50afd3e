"""The samples of the rankers: each event with what was known before its moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.plain.data import Data
from pipelines.features.schema import NUMBERS, SAMPLE_COLUMNS, USER_HISTORY


@dataclass
class _Statistics:
    """Running count, mean and spread (Welford)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.count += 1
            distance = value - self.mean
            self.mean += distance / self.count
            self.squares += distance * (value - self.mean)

    def values(self) -> list[float | None]:
        mean = self.mean if self.count else None
        return [mean, sqrt(self.squares / (self.count - 1)) if self.count > 1 else None]


@dataclass
class _User:
    rating: _Statistics = field(default_factory=_Statistics)
    year: _Statistics = field(default_factory=_Statistics)
    recent: list[int] = field(default_factory=list)
    genres: Counter[str] = field(default_factory=Counter)
    row: list[Any] = field(default_factory=list)


def features(data: Data, threshold: float, length: int) -> pa.Table:
    """Return the samples: each event with what was known before its moment."""
    attributes = dict(enumerate(data.items.select(["genres", "release_year"]).to_pylist()))
    times = data.events["timestamp"].cast(pa.int64(), safe=False).to_numpy()
    ids, ratings = data.events["item_id"].to_pylist(), data.events["rating"].to_pylist()
    numbers = data.item.tolist()
    of_items: list[list[Any]] = [[]] * len(numbers)
    rated: dict[int, _Statistics] = {}
    for same in _moments(data.item, times):
        known = rated.setdefault(numbers[same[0]], _Statistics())
        about = attributes[numbers[same[0]]]
        genres = [*(about["genres"] or []), None, None, None][:3]
        row = [about["release_year"], known.count, *known.values(), *genres]
        for event in same:
            of_items[event] = row
        for event in same:
            known.add(ratings[event])
    of_users: list[list[Any]] = [[]] * len(numbers)
    users: dict[int, _User] = {}
    for same in _moments(data.user, times):
        user = users.setdefault(int(data.user[same[0]]), _User())
        ranked = sorted(user.genres.items(), key=lambda entry: (-entry[1], entry[0]))[:5]
        genres = [*(genre for genre, _ in ranked), *[None] * (5 - len(ranked))]
        recent = [*user.recent[:5], *[None] * (5 - len(user.recent))]
        statistics = [user.rating.count, *user.rating.values(), *user.year.values()]
        row = [*recent, *statistics, *genres, user.recent]
        for event in same:
            of_users[event] = row
        for event in reversed(same):
            about = attributes[numbers[event]]
            user.rating.add(ratings[event])
            user.year.add(about["release_year"])
            if ratings[event] >= threshold:
                others = [other for other in user.recent if other != ids[event]]
                user.recent = [ids[event], *others][:length]
                user.genres.update(about["genres"] or [])
    rows = ([*u[:-1], *i, u[-1]] for u, i in zip(of_users, of_items, strict=True))
    names = SAMPLE_COLUMNS[7:]
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    label = pa.array(data.positive.astype(np.float64))
    first = data.events.select(list(SAMPLE_COLUMNS[:4])).append_column("label", label)
    marks = data.events.select(["is_holdout", "is_validation"])
    for name, values in zip(marks.column_names, marks.columns, strict=True):
        first = first.append_column(name, values)
    for name, values in columns.items():
        kind = {USER_HISTORY: pa.list_(pa.int64()), "release_year": pa.int32()}.get(name)
        if kind is None and name in NUMBERS and not name.endswith("_count"):
            kind = pa.float64()
        first = first.append_column(name, pa.array(values, kind))
    return first.filter(first["is_holdout"].is_valid())


def _moments(key: NDArray[np.int64], times: NDArray[np.int64]) -> Iterator[list[int]]:
    """Give the events of each key and moment, in the order of time."""
    order = np.lexsort((times, key))
    same = (np.diff(key[order]) == 0) & (np.diff(times[order]) == 0)
    for part in np.split(order, np.flatnonzero(~same) + 1):
        yield part.tolist()
