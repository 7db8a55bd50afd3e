"""A tiny world with two tastes, written as the feature job would, with known right answers.

Half of the users like the items of taste 0, half those of taste 1, and dislike the others'; all
like the hits and dislike the duds. So a list-making model can learn tastes, and a linear one that
an item is a hit. Every user has seen 20 of the 36 items; the last 5 are the holdout.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config import DataConfig, EventSource, IdType, ItemSource, PipelineConfig
from pipelines.features.schema import (
    FEATURES,
    IS_VALIDATION,
    ITEM_FEATURES,
    NUMBERS,
    USER_FEATURES,
    USER_GENRES,
    USER_HISTORY,
    USER_NUMBERS,
    USER_RECENT_ITEMS,
)
from pipelines.lake import RunPaths
from pipelines.models.base import BuildInputs, Built

USERS = 40
TASTE_SIZE = 12
#: What an item is, by its number: one of the two tastes, a hit or a dud.
KINDS = ["taste 0"] * TASTE_SIZE + ["taste 1"] * TASTE_SIZE + ["hit"] * 6 + ["dud"] * 6
HOLDOUT = 5
VALIDATION = 3
_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class World:
    """Where the world is written, and how its ids come about."""

    root: Path
    config: PipelineConfig

    def item_id(self, number: int) -> Any:
        """Not dense, not small, and some negative: an id is just a name."""
        return (number - 5) * 10**15 if self._has_numbers else f"item-{number:03} é"

    def user_id(self, number: int) -> Any:
        return 7 * number - 20 if self._has_numbers else f"user-{number:03}"

    @property
    def _has_numbers(self) -> bool:
        return self.config.data.item_id_type == "int64"

    def inputs(self, workdir: Path) -> BuildInputs:
        workdir.mkdir(parents=True, exist_ok=True)
        return BuildInputs(date(2026, 3, 1), RunPaths(str(self.root)), self.config, workdir)

    def kind(self, item_id: Any) -> str:
        return KINDS[[self.item_id(i) for i in range(len(KINDS))].index(item_id)]

    def taste(self, user_id: Any) -> str:
        return f"taste {[self.user_id(u) for u in range(USERS)].index(user_id) % 2}"


@dataclass
class _History:
    """What is known of a user or item before a moment."""

    ratings: list[float] = field(default_factory=list)
    liked: list[int] = field(default_factory=list)

    def numbers(self) -> list[float | None]:
        if not self.ratings:
            return [0.0, None, None]
        return [float(len(self.ratings)), fmean(self.ratings), pstdev(self.ratings)]


def _genres(item: int) -> list[str]:
    return ["Film"] if item % 5 == 0 else ["Film", KINDS[item].title()]


def _year(item: int) -> int | None:
    return None if item % 7 == 0 else 1990 + item


def make_world(root: Path, id_type: IdType = "int64", **config: Any) -> World:
    """Write all input folders below `root`."""
    world = World(root, _config(id_type, config))
    rows, users, items = _events(world)
    ids = {"int64": pa.int64(), "string": pa.string()}[id_type]
    types: dict[str, pa.DataType] = {
        "user_id": ids,
        "item_id": ids,
        "rating": pa.float64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "label": pa.float64(),
        "is_holdout": pa.bool_(),
        IS_VALIDATION: pa.bool_(),
        **dict.fromkeys(FEATURES, pa.string()),
        **dict.fromkeys(NUMBERS, pa.float64()),
        "release_year": pa.int32(),
        **dict.fromkeys(USER_RECENT_ITEMS, ids),
        USER_HISTORY: pa.list_(ids),
        "title": pa.string(),
        "genres": pa.list_(pa.string()),
    }

    def write(name: str, columns: tuple[str, ...], content: list[dict[str, Any]]) -> None:
        (root / name).mkdir(parents=True)
        schema = pa.schema([(column, types[column]) for column in columns])
        pq.write_table(pa.Table.from_pylist(content, schema), root / name / "part-0.parquet")

    event = ("user_id", "item_id", "rating", "timestamp", "is_holdout", IS_VALIDATION)
    catalogue = [
        {
            "item_id": world.item_id(i),
            "title": f"{kind} {i}",
            "genres": _genres(i),
            "release_year": _year(i),
        }
        for i, kind in enumerate(KINDS)
    ]
    write("events", event, rows)
    write("items", ("item_id", "title", "genres", "release_year"), catalogue)
    write("samples", (*event, "label", *FEATURES, USER_HISTORY), rows)
    write("user_features", ("user_id", *USER_FEATURES, USER_HISTORY), users)
    write("item_features", ("item_id", *ITEM_FEATURES), items)
    return world


def assert_calibration(built: Built, world: World) -> None:
    """Check that the bins of a build hold the whole holdout and its labels."""
    samples = pq.read_table(f"{world.root}/samples", columns=["is_holdout", "label"]).to_pylist()
    labels = [row["label"] for row in samples if row["is_holdout"]]
    filled = [
        (b.count, b.positive_share) for b in built.calibration if b.positive_share is not None
    ]
    assert sum(count for count, _ in filled) == len(labels)
    assert sum(count * share for count, share in filled) == pytest.approx(sum(labels))


def _config(id_type: IdType, models: dict[str, Any]) -> PipelineConfig:
    data = DataConfig(
        events=EventSource(path="unused"),
        items=ItemSource(path="unused"),
        user_id_type=id_type,
        item_id_type=id_type,
    )
    return PipelineConfig.model_validate({"data": data, "models": models, "release": {}})


def _events(world: World) -> tuple[list[dict[str, Any]], ...]:
    drawn = random.Random(7)
    ratings: list[tuple[datetime, int, int, float, bool, bool]] = []
    for user in range(USERS):
        own, other = f"taste {user % 2}", f"taste {1 - user % 2}"
        chosen = [
            (item, liked)
            for kind, count, liked in (
                (own, 10, True),
                (other, 2, False),
                ("hit", 4, True),
                ("dud", 4, False),
            )
            for item in drawn.sample([i for i, k in enumerate(KINDS) if k == kind], count)
        ]
        drawn.shuffle(chosen)
        for place, (item, liked) in enumerate(chosen):
            at = _START + timedelta(hours=place * USERS + user)
            rating = drawn.choice([4.0, 4.5, 5.0] if liked else [1.0, 2.0])
            left = len(chosen) - HOLDOUT
            is_validation = left - VALIDATION <= place < left
            ratings.append((at, user, item, rating, place >= left, is_validation))
    users = [_History() for _ in range(USERS)]
    items = [_History() for _ in KINDS]
    rows = []
    for at, user, item, rating, is_holdout, is_validation in sorted(ratings):
        rows.append(
            {
                "user_id": world.user_id(user),
                "item_id": world.item_id(item),
                "rating": rating,
                "timestamp": at,
                "label": float(rating >= 3.5),
                "is_holdout": is_holdout,
                IS_VALIDATION: is_validation,
                **_user_features(world, users[user]),
                **_item_features(item, items[item]),
            }
        )
        for history in (users[user], items[item]):
            history.ratings.append(rating)
        if rating >= 3.5:
            users[user].liked.append(item)
    return (
        rows,
        [
            {"user_id": world.user_id(u), **_user_features(world, history)}
            for u, history in enumerate(users)
        ],
        [
            {"item_id": world.item_id(i), **_item_features(i, history)}
            for i, history in enumerate(items)
        ],
    )


def _padded(values: list[Any], size: int) -> list[Any]:
    return [*values[:size], *[None] * (size - len(values))]


def _user_features(world: World, history: _History) -> dict[str, Any]:
    years = [year for item in history.liked if (year := _year(item))]
    moments = [fmean(years), pstdev(years)] if years else [None, None]
    genres = Counter(genre for item in history.liked for genre in _genres(item))
    favourites = [genre for genre, _ in genres.most_common()]
    recent = [world.item_id(item) for item in reversed(history.liked)]
    return {
        **dict(zip(USER_RECENT_ITEMS, _padded(recent, len(USER_RECENT_ITEMS)), strict=True)),
        **dict(zip(USER_NUMBERS, [*history.numbers(), *moments], strict=True)),
        **dict(zip(USER_GENRES, _padded(favourites, len(USER_GENRES)), strict=True)),
        USER_HISTORY: recent,
    }


def _item_features(item: int, history: _History) -> dict[str, Any]:
    values = [_year(item), *history.numbers(), *_padded(_genres(item), 3)]
    return dict(zip(ITEM_FEATURES, values, strict=True))


def rewrite(world: World, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replace a folder's rows by what `change` makes of them."""
    path = world.root / name / "part-0.parquet"
    pq.write_table(change(pq.read_table(path)), path)
