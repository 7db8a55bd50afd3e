"""A share of every list for items that nothing is known of: without it they could never be liked.

The new items stand in an order that is drawn anew for every run date. Each user starts somewhere
in it and gets the next ones that they have not seen, so that all new items are shown alike, and the
same run always gives the same lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as sf

from pipelines.models.interactions import FIRST_AT, ITEM
from pipelines.models_config import ExplorationConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

#: A user's place in the order of new items, modulo its length.
TURN = "turn"
_TURNS = 2**31 - 1
_SECONDS_PER_DAY = 86_400


def new_items(pairs: DataFrame, catalogue: DataFrame, config: ExplorationConfig) -> DataFrame:
    """Return ``item``, the number of each item of `catalogue` that is new.

    `pairs` has user_id, item and first_at. The end of time is the latest first_at.
    """
    last = pairs.agg(sf.unix_micros(sf.max(FIRST_AT))).first()
    start = (last[0] if last and last[0] else 0) - int(config.days * _SECONDS_PER_DAY * 1e6)
    known = pairs.groupBy(ITEM).agg(
        sf.count("*").alias("users"), sf.unix_micros(sf.min(FIRST_AT)).alias("first")
    )
    is_new = sf.col("users").isNull() | (
        (sf.col("users") <= config.max_users) & (sf.col("first") >= start)
    )
    return catalogue.join(known, ITEM, "left").where(is_new).select(ITEM)


def turn(run_date: date, seed: int) -> Column:
    """Return the column ``turn`` (int) of users with the column ``id``."""
    text = sf.concat_ws("/", sf.col("id").cast("string"), sf.lit(f"{run_date}/{seed}"))
    return sf.pmod(sf.xxhash64(text), sf.lit(_TURNS)).cast("int").alias(TURN)


@dataclass(frozen=True)
class Exploration:
    """Which items are new, and where they go.

    `items` [n] int64 are their numbers in the order of the run date, and a second time after
    that; `places` are the places of a list from 0, ascending.
    """

    items: NDArray[np.int64]
    places: tuple[int, ...]

    @classmethod
    def plan(
        cls,
        items: NDArray[np.int64],
        config: ExplorationConfig,
        list_size: int,
        run_date: date,
        seed: int,
    ) -> Exploration | None:
        """Spread ``share * list_size`` places evenly behind the first ones; None if there are none.

        `items` are the numbers of the new items, ascending.
        """
        count = min(round(config.share * list_size), max(0, list_size - config.after))
        if count == 0 or len(items) == 0:
            return None
        places = np.linspace(config.after, list_size, count, endpoint=False).astype(int)
        order = np.random.default_rng([seed, run_date.toordinal()]).permutation(items)
        return cls(np.concatenate([order, order]), tuple(places.tolist()))

    def draw(self, turns: pa.Array, scores: NDArray[np.float32]) -> list[NDArray[np.int64]]:
        """Return each user's new items, at most one a place; seen ones have the score -inf."""
        length = len(self.items) // 2
        drawn = []
        for row, start in zip(scores, turns.to_numpy() % length, strict=True):
            turned = self.items[start : start + length]
            drawn.append(turned[np.isfinite(row[turned])][: len(self.places)])
        return drawn

    def insert(
        self, items: NDArray[np.int64], new: NDArray[np.int64], size: int
    ) -> NDArray[np.int64]:
        """Return `items`, best first and without any of `new`, with these put in their places."""
        line = items[: size - len(new)].tolist()
        for place, item in zip(self.places, new.tolist(), strict=False):
            line.insert(place, item)
        return np.array(line, np.int64)
