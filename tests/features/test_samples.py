"""Features against their definition, and their blindness to what comes later."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import PipelineConfig
from pipelines.data.contract import DataSummary
from pipelines.data.days import UnfinishedDays
from pipelines.data.files import SparkFiles
from pipelines.errors import DataError
from pipelines.features.samples import build_features
from pipelines.features.schema import FEATURES, ITEM_FEATURES, USER_FEATURES, USER_HISTORY
from pipelines.lake import Lake, RunPaths
from tests.features.naive import POSITIVE, Catalogue, Event, Item, item_features, user_features
from tests.features.universe import (
    CATALOGUES,
    END,
    EVENTS,
    RUN_DATE,
    START,
    STEP,
    configuration,
    moved,
    moved_items,
    write_lake,
)

#: An example is a run of the feature job over dozens of worlds; shrinking would take minutes.
#: The first one that hypothesis tries is the simplest there is, the second one is random.
twice = settings(
    max_examples=2,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

Key = tuple[Any, Any, float, int]


class Features:
    """The results of one run of the feature job, collected."""

    def __init__(self, spark: SparkSession, paths: RunPaths, summary: DataSummary) -> None:
        def rows(path: str) -> list[Row]:
            return spark.read.parquet(path).collect()

        timed = spark.read.parquet(paths.samples).withColumn("at", sf.unix_seconds("timestamp"))
        samples = [(key(row), row) for row in timed.collect()]
        self.samples = dict(samples)
        assert len(self.samples) == len(samples)
        self.users = {row["user_id"]: row for row in rows(paths.user_features)}
        self.items = {row["item_id"]: row for row in rows(paths.item_features)}
        self.events = rows(paths.events)
        self.summary = summary


def key(row: Row) -> Key:
    return row["user_id"], row["item_id"], row["rating"], row["at"]


def run(
    spark: SparkSession,
    events: list[Event],
    items: Catalogue,
    config: PipelineConfig,
    after: Callable[[Lake], None] = lambda _: None,
) -> Features:
    with TemporaryDirectory() as folder:
        lake = Lake(folder)
        write_lake(spark, lake, config, events, items)
        paths = lake.run(202403050001)
        summary = build_features(spark, config, lake, paths, RUN_DATE)
        assert DataSummary.load(paths.data_summary) == summary
        assert sorted(p.name for p in Path(paths.root).iterdir()) == [
            "data.json",
            "events",
            "item_features",
            "items",
            "samples",
            "user_features",
        ]
        after(lake)
        return Features(spark, paths, summary)


def close(expected: dict[str, Any]) -> dict[str, Any]:
    return {
        name: pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value
        for name, value in expected.items()
    }


def picked(row: Row, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def assert_as_defined(found: Features, events: list[Event], items: Catalogue) -> None:
    known = [e for e in set(events) if e.at < END]
    for (user, item, rating, at), row in found.samples.items():
        expected = user_features(known, items, user, at) | item_features(known, items, item, at)
        assert picked(row, (*FEATURES, USER_HISTORY)) == close(expected), (user, item, rating, at)
        assert row["label"] == float(rating >= POSITIVE)
    assert found.users.keys() == {e.user for e in known}
    for user, row in found.users.items():
        expected = user_features(known, items, user, END)
        assert picked(row, (*USER_FEATURES, USER_HISTORY)) == close(expected), user
    assert found.items.keys() == {e.item for e in known} | items.keys()
    for item, row in found.items.items():
        expected = item_features(known, items, item, END)
        assert picked(row, ITEM_FEATURES) == close(expected), item


WORLDS = st.lists(
    st.tuples(st.lists(EVENTS, min_size=1, max_size=25), CATALOGUES), min_size=15, max_size=25
)


@twice
@given(worlds=WORLDS)
def test_all_features_are_what_their_definition_says(
    spark: SparkSession, worlds: list[tuple[list[Event], Catalogue]]
) -> None:
    events: list[Event] = []
    items: Catalogue = {}
    for number, (of_world, catalogue) in enumerate(worlds):
        events += moved(of_world, number)
        items |= moved_items(catalogue, number)
    if not any(e.at < END for e in events):
        return
    config = configuration(evaluation={"holdout_days": 2, "min_holdout_users": 1})
    found = run(spark, events, items, config)
    assert_as_defined(found, events, items)
    expected = marked_by_hand({e for e in events if e.at < END}, END - 2 * 86_400)
    assert len(found.events) == len(expected)
    if found.summary.holdout == "last_days":
        trained = {k: mark for k, mark in expected.items() if mark is not None}
        assert {k: row["is_holdout"] for k, row in found.samples.items()} == trained
        assert found.summary.set_aside_rows == len(expected) - len(trained)


def marked_by_hand(events: set[Event], start: int) -> dict[Key, bool | None]:
    """Which events are held out, trained on (False) or neither (None)."""
    known_before = {e.user for e in events if e.at < start}
    return {
        (e.user, e.item, e.rating, e.at): (
            False if e.at < start else True if e.user in known_before else None
        )
        for e in events
    }


@st.composite
def changed_futures(draw: st.DrawFn) -> tuple[Event, list[Event], list[Event], Catalogue]:
    """An event, and two worlds that are the same before it and arbitrary from its moment on."""
    catalogue = draw(CATALOGUES)
    sample = draw(EVENTS.filter(lambda e: e.at < END))
    past = [e for e in draw(st.lists(EVENTS, max_size=25)) if e.at < sample.at]
    futures = [
        [
            e
            for e in draw(st.lists(EVENTS, max_size=20))
            # The same event twice would be one event.
            if e.at >= sample.at and e != sample
        ]
        for _ in range(2)
    ]
    return sample, past + futures[0], past + futures[1], catalogue


@twice
@given(cases=st.lists(changed_futures(), min_size=25, max_size=40))
def test_nothing_that_happens_later_changes_a_sample(
    spark: SparkSession, cases: list[tuple[Event, list[Event], list[Event], Catalogue]]
) -> None:
    events: list[Event] = []
    items: Catalogue = {}
    for number, (sample, one, other, catalogue) in enumerate(cases):
        for world, of_world in ((2 * number, one), (2 * number + 1, other)):
            events += moved([sample, *of_world], world)
            items |= moved_items(catalogue, world)
    # With a fraction every event is a sample.
    config = configuration(evaluation={"min_holdout_users": 10**6})
    found = run(spark, events, items, config)
    for number, (sample, _, _, _) in enumerate(cases):
        rows = []
        for world in (2 * number, 2 * number + 1):
            (e,) = moved([sample], world)
            features = picked(found.samples[e.user, e.item, e.rating, e.at], FEATURES)
            for name, value in features.items():
                if name.startswith("user_rated_") and value is not None:
                    features[name] = value - world * 100
            rows.append(close(features))
        assert rows[0] == {n: getattr(v, "expected", v) for n, v in rows[1].items()}


@pytest.fixture(scope="module")
def by_hand(spark: SparkSession) -> Features:
    """One small lake, with ids that are texts, whose results can be worked out on paper."""
    items = {
        "a": Item(("Drama", "War", "Crime", "Noir"), 2000),
        "b": Item((), None),
        "c": Item(("Action",), 1990),
    }
    events = [
        Event("u", "a", 5.0, START),
        Event("u", "b", 1.0, START),
        Event("u", "z", 4.0, START + STEP),
        Event("u", "c", 4.5, START + STEP),
        Event("u", "a", 3.5, START + 2 * STEP),
        Event("v", "a", 3.0, END - 1),
        Event("u", "c", 5.0, END),
    ]
    config = configuration(
        data={"user_id_type": "string", "item_id_type": "string"},
        evaluation={"min_holdout_users": 100},
    )
    seen = []

    def again(lake: Lake) -> None:
        """Run once more over what is there, after the lake has learned of other events."""
        paths = lake.run(202403050001)
        seen.append(spark.read.parquet(paths.samples).count())
        write_lake(spark, lake, config, [*events, Event("w", "c", 4.0, END + 9)], items)
        build_features(spark, config, lake, paths, RUN_DATE)

    features = run(spark, events, items, config, again)
    assert seen == [6]
    assert_as_defined(features, events, items)
    return features


def test_the_end_of_the_run_date_ends_the_world(by_hand: Features) -> None:
    assert len(by_hand.samples) == len(by_hand.events) == 6
    assert by_hand.items["c"]["item_rating_count"] == 1
    assert by_hand.users.keys() == {"u", "v"}
    # The last second of the day is still in it.
    assert ("v", "a", 3.0, END - 1) in by_hand.samples


def test_events_of_the_same_moment_see_nothing_of_each_other(by_hand: Features) -> None:
    for item, rating in (("z", 4.0), ("c", 4.5)):
        sample = by_hand.samples["u", item, rating, START + STEP]
        assert [sample[f"user_rated_{i}"] for i in (1, 2)] == ["a", None]
        assert (sample["user_rating_count"], sample["user_rating_mean"]) == (2, 3.0)
    later = by_hand.samples["u", "a", 3.5, START + 2 * STEP]
    assert [later[f"user_rated_{i}"] for i in (1, 2, 3)] == ["c", "z", "a"]


def test_serving_features_know_the_latest_event(by_hand: Features) -> None:
    user = by_hand.users["u"]
    # Item a was liked twice: it counts as the newest, and once.
    assert [user[f"user_rated_{i}"] for i in range(1, 5)] == ["a", "c", "z", None]
    genres = ["Crime", "Drama", "Noir", "War", "Action"]
    assert [user[f"user_genre_{i}"] for i in range(1, 6)] == genres
    assert (user["user_rating_count"], user["user_rating_mean"]) == (5, 3.6)
    assert user["user_release_year_mean"] == pytest.approx(5990 / 3)


def test_an_item_has_features_with_or_without_events_and_catalogue(by_hand: Features) -> None:
    assert by_hand.items.keys() == {"a", "b", "c", "z"}
    assert picked(by_hand.items["z"], ITEM_FEATURES) == {
        "release_year": None,
        "item_rating_count": 1,
        "item_rating_mean": 4.0,
        "item_rating_stddev": None,
        "item_genre_1": None,
        "item_genre_2": None,
        "item_genre_3": None,
    }
    first = by_hand.items["a"]
    assert [first[f"item_genre_{i}"] for i in (1, 2, 3)] == ["Drama", "War", "Crime"]


def test_the_summary_counts_what_was_written(by_hand: Features) -> None:
    assert by_hand.summary.lake_id
    assert by_hand.summary == DataSummary(
        run_date=RUN_DATE,
        lake_id=by_hand.summary.lake_id,
        rows=6,
        users=2,
        items=4,
        catalogue_items=3,
        first_day=date(2024, 3, 2),
        last_day=RUN_DATE,
        positives=4,
        holdout="last_fraction",
        holdout_days=None,
        holdout_fraction=0.2,
        holdout_rows=1,
        holdout_users=1,
        set_aside_rows=0,
    )


def test_a_lake_that_can_not_be_trusted_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    config = configuration()
    paths = lake.run(202403050001)
    with pytest.raises(DataError, match="the lake has no events yet: run ingest first"):
        build_features(spark, config, lake, paths, RUN_DATE)
    write_lake(spark, lake, config, [Event(1, 1, 4.0, END)], {1: Item((), None)})
    with pytest.raises(DataError, match="no event up to the end of 2024-03-05"):
        build_features(spark, config, lake, paths, RUN_DATE)
    UnfinishedDays(SparkFiles(spark), lake.ratings).start({RUN_DATE})
    with pytest.raises(DataError, match="ingest of 2024-03-05 is at work or was interrupted"):
        build_features(spark, config, lake, paths, RUN_DATE)
