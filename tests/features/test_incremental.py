"""Going on from what earlier runs kept gives what computing all days gives, row by row."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.config import PipelineConfig
from pipelines.features.samples import build_features
from pipelines.lake import Lake, RunPaths
from tests.features.naive import Catalogue, Event, Item
from tests.features.universe import END, RUN_DATE, configuration, write_items, write_lake

DAY = timedelta(days=1)
FOLDERS = ("samples", "events", "items", "user_features", "item_features")
#: Sums of tenths depend on their order, those of halves do not.
RATINGS = [tenths / 10 for tenths in range(5, 51)]
#: Few moments a day, so that many events share one.
MOMENTS = range(0, 86_400, 21_600)


class World:
    """A lake that changes, and what its source knows."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark = spark
        self.lake = Lake(str(folder))
        self.random = random.Random(13)
        self.days: dict[date, list[Event]] = {}
        self.items: Catalogue = {
            i: Item(tuple(self.random.sample("ABCDEFG", i % 4)), None if i % 5 == 0 else 1990 + i)
            for i in range(1, 12)
        }
        self.settings: dict[str, Any] = {"evaluation": {"holdout_days": 1, "min_holdout_users": 1}}
        self.runs = 0

    def config(self, incremental_from: int = 0) -> PipelineConfig:
        config = configuration(**self.settings)
        features = config.features.model_copy(update={"incremental_from": incremental_from})
        return config.model_copy(update={"features": features})

    def bring(self, day: date, events: int, item: int | None = None) -> None:
        """Add events to a day."""
        start = END - 86_400 - (RUN_DATE - day).days * 86_400
        self.days.setdefault(day, []).extend(
            Event(
                user=self.random.randrange(1, 9),
                item=item or self.random.randrange(1, 14),
                rating=self.random.choice(RATINGS),
                at=start + self.random.choice(MOMENTS),
            )
            for _ in range(events)
        )
        write_lake(self.spark, self.lake, self.config(), self.days[day], self.items)

    def build(self, config: PipelineConfig, run_date: date, **how: Any) -> dict[str, Any]:
        """Return all that a run hands over."""
        self.runs += 1
        paths = self.lake.run(self.runs)
        summary = build_features(self.spark, config, self.lake, paths, run_date, **how)
        return {name: rows(self.spark, paths, name) for name in FOLDERS} | {"data": summary}

    def go_on(self, run_date: date) -> dict[str, Any]:
        return self.build(self.config(), run_date, keep=True)

    def states(self) -> list[Path]:
        return sorted(Path(self.lake.features).glob("*/state.json"))


def rows(spark: SparkSession, paths: RunPaths, name: str) -> tuple[str, list[str]]:
    """Return the schema, and the rows to the last bit, in an order of their own."""
    frame = spark.read.parquet(f"{paths.root}/{name}")
    return frame.schema.simpleString(), sorted(map(repr, frame.collect()))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """What the features say of where they go on from, since the last time."""

    def since_last() -> str:
        lines = [r.getMessage() for r in caplog.records if r.name.endswith("incremental")]
        caplog.clear()
        assert len(lines) == 1
        return lines[0].removeprefix("features: ")

    with caplog.at_level(logging.INFO, logger="pipelines.features.incremental"):
        yield since_last


def assert_same(kept: dict[str, Any], full: dict[str, Any]) -> None:
    for name, expected in full.items():
        assert kept[name] == expected, name


def test_whatever_happens_the_outcome_is_that_of_all_days(
    spark: SparkSession, tmp_path: Path, said: Callable[[], str]
) -> None:
    world = World(spark, tmp_path)
    first, today = RUN_DATE - 5 * DAY, RUN_DATE - 2 * DAY
    for ago in range(4):
        world.bring(today - ago * DAY, 25)
    world.go_on(today)
    assert said() == f"computed anew for all days: nothing is kept of days up to {today}"

    # A day more. A new item is no change of those with events.
    world.items[20] = Item(("A",), 2001)
    world.bring(today + DAY, 20)
    left_by_a_crash = Path(world.lake.features, "half", "samples", "old", "part-0.parquet")
    left_by_a_crash.parent.mkdir(parents=True)
    left_by_a_crash.touch()
    kept = world.go_on(today + DAY)
    assert said() == f"those up to {today} are kept from an earlier run"
    assert_same(kept, world.build(world.config(), today + DAY))
    assert not left_by_a_crash.parents[2].exists()
    # Nothing has happened since: nothing is computed, and no other state is kept.
    there = world.states()
    assert_same(world.go_on(today + DAY), kept)
    assert said() == f"those up to {today + DAY} are kept from an earlier run"
    assert world.states() == there

    # That day was read again, with more rows: it is computed again, from the day before.
    world.bring(today + DAY, 10)
    world.bring(today + 2 * DAY, 15)
    world.bring(today + 2 * DAY, 1, item=30)
    kept = world.go_on(today + 2 * DAY)
    assert said() == f"computed anew after {today}: day {today + DAY} has changed"
    assert_same(kept, world.build(world.config(), today + 2 * DAY))

    # Each user's last events are held out, of any day; and an item of the newest day is described.
    world.settings["evaluation"] = {"min_holdout_users": 100}
    world.items[30] = Item(("A", "Z"), 2003)
    write_items(spark, world.lake, world.config(), world.items)
    kept = world.go_on(today + 2 * DAY)
    assert said() == f"computed anew after {today}: the catalogue has changed for item 30"
    there = world.states()
    # A run of the last days alone has no part in what is kept.
    assert_same(kept, world.build(world.config(), today + 2 * DAY, keep=True, training_days=99))
    assert world.states() == there

    # Late rows before all that is kept; and days are held out that were trained on.
    world.settings["evaluation"] = {"holdout_days": 2, "min_holdout_users": 1}
    world.bring(first + DAY, 3)
    kept = world.go_on(today + 2 * DAY)
    assert said() == f"computed anew for all days: day {first + DAY} has changed"
    assert len(world.states()) == 1
    # With fewer events than it is worth nothing is kept.
    few = world.config(incremental_from=10**9)
    assert_same(kept, world.build(few, today + 2 * DAY, keep=True))
    assert not Path(world.lake.features).exists()
