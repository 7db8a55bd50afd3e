"""The features of a moment from their definition, in plain Python: the reference for the tests."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

POSITIVE = 3.5
#: Shorter than some of the histories, so that they are cut.
HISTORY = 3


@dataclass(frozen=True)
class Event:
    """`item` and `user` are of the type that the ids have; `at` is in seconds."""

    user: Any
    item: Any
    rating: float
    at: int


@dataclass(frozen=True)
class Item:
    genres: tuple[str, ...]
    release_year: int | None


Catalogue = dict[Any, Item]
_UNKNOWN = Item((), None)


def user_features(events: list[Event], items: Catalogue, user: Any, at: int) -> dict[str, Any]:
    """What was known of a user before a moment."""
    earlier = [e for e in events if e.user == user and e.at < at]
    years = [
        year for e in earlier if (year := items.get(e.item, _UNKNOWN).release_year) is not None
    ]
    positives = [e for e in earlier if e.rating >= POSITIVE]
    newest: list[Any] = []
    for event in sorted(sorted(positives, key=lambda e: e.item), key=lambda e: -e.at):
        if event.item not in newest:
            newest.append(event.item)
    counts = Counter(g for e in positives for g in items.get(e.item, _UNKNOWN).genres)
    genres = sorted(counts, key=lambda g: (-counts[g], g))
    return {
        **{f"user_rated_{i + 1}": _get(newest, i) for i in range(5)},
        "user_history": newest[:HISTORY],
        **_numbers("user_rating", [e.rating for e in earlier]),
        **{k: v for k, v in _numbers("user_release_year", years).items() if "count" not in k},
        **{f"user_genre_{i + 1}": _get(genres, i) for i in range(5)},
    }


def item_features(events: list[Event], items: Catalogue, item: Any, at: int) -> dict[str, Any]:
    """What was known of an item before a moment."""
    attributes = items.get(item, _UNKNOWN)
    ratings = [e.rating for e in events if e.item == item and e.at < at]
    return {
        "release_year": attributes.release_year,
        **_numbers("item_rating", ratings),
        **{f"item_genre_{i + 1}": _get(attributes.genres, i) for i in range(3)},
    }


def _numbers(prefix: str, values: list[Any]) -> dict[str, Any]:
    return {
        f"{prefix}_count": len(values),
        f"{prefix}_mean": statistics.fmean(values) if values else None,
        f"{prefix}_stddev": statistics.stdev(values) if len(values) > 1 else None,
    }


def _get(values: Any, position: int) -> Any:
    return values[position] if position < len(values) else None
