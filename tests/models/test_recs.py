"""`recs`: users get what suits their taste, nothing they have seen, and the same again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.errors import DataError
from pipelines.evaluation.ranking import COVERAGE, NDCG, NOVELTY, RECALL, TOP_SHARE
from pipelines.models import recs, registry
from pipelines.models.base import Built
from pipelines.models.stored import EVALUATION
from tests.models.world import KINDS, USERS, World, rewrite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def build(spark: SparkSession, world: World, folder: Path) -> Built:
    return registry.build("recs", spark, world.inputs(folder))


Tables = dict[str, dict[Any, Any]]


def tables(built: Built) -> Tables:
    return {t.name: {r["id"]: r["value"] for r in t.frame.collect()} for t in built.tables}


@dataclass(frozen=True)
class Made:
    """What is built of a world."""

    world: World
    built: Built
    tables: Tables


@pytest.fixture(scope="module", params=["world", "string_world"])
def made(
    request: pytest.FixtureRequest, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """A build for each type of ids."""
    world: World = request.getfixturevalue(request.param)
    built = build(spark, world, tmp_path_factory.mktemp("built"))
    return Made(world, built, tables(built))


def seen(world: World) -> dict[Any, set[Any]]:
    events = pq.read_table(world.root / "events")
    result: dict[Any, set[Any]] = {}
    for row in events.select(["user_id", "item_id"]).to_pylist():
        result.setdefault(row["user_id"], set()).add(row["item_id"])
    return result


def test_lists_suit_the_users_and_metrics_beat_popularity(
    spark: SparkSession, made: Made, tmp_path: Path
) -> None:
    world, built = made.world, made.built
    assert set(made.tables) == {"user_items", "popular", "similar_items", "titles"}
    assert len(made.tables["user_items"]) == USERS

    already = seen(world)
    suited = 0
    for user, items in made.tables["user_items"].items():
        assert not already[user] & set(items)
        # The catalogue is smaller than the list: everything unseen is in it, once.
        assert len(items) == len(set(items)) == len(KINDS) - len(already[user])
        suited += sum(world.kind(item) in (world.taste(user), "hit") for item in items[:4])
    assert suited >= 0.9 * 4 * USERS

    assert set(made.tables["popular"]) == {
        "all",
        *(f"genre:{genre}" for genre in ("Film", "Taste 0", "Taste 1", "Hit", "Dud")),
    }
    assert made.tables["popular"]["genre:Film"] == made.tables["popular"]["all"]
    assert {world.kind(item) for item in made.tables["popular"]["genre:Taste 1"]} == {"taste 1"}
    popular = made.tables["popular"]["all"]
    assert sorted(popular) == sorted(world.item_id(i) for i in range(len(KINDS)))
    assert {world.kind(item) for item in popular[:4]} == {"hit"}
    assert {world.kind(item) for item in popular[-6:]} == {"dud"}
    agreeing = 0
    for item, others in made.tables["similar_items"].items():
        assert item not in others
        assert len(others) == len(set(others))
        agreeing += world.kind(others[0]) in (world.kind(item), "hit")
    assert len(made.tables["similar_items"]) == 30, "each item that somebody likes"
    assert agreeing >= 27
    assert made.tables["titles"][world.item_id(0)] == "taste 0 0"

    ndcg = built.metrics["ndcg_at_10"]
    assert ndcg.value > 1.2 * ndcg.baselines["popularity"]
    assert built.metrics["recall_at_50"].value == pytest.approx(1.0)
    assert built.metrics["coverage"].value == 1.0
    assert set(built.metrics) == {NDCG, RECALL, COVERAGE, TOP_SHARE, NOVELTY}
    assert not built.metrics[TOP_SHARE].higher_is_better
    assert set(built.params["blend"]) == {"als", "ease", "popularity"}

    # What is kept gives the same again.
    stored = registry.evaluate_stored(
        "recs", spark, world.inputs(tmp_path / "again"), built.files[EVALUATION]
    )
    assert stored == {name: metric.value for name, metric in built.metrics.items()}


@pytest.mark.parametrize("off", ["als", "ease"])
def test_each_model_alone_learns_the_tastes(
    spark: SparkSession, new_world: Callable[..., World], tmp_path: Path, off: str
) -> None:
    world = new_world(recs={off: {"enabled": False}})
    built = build(spark, world, tmp_path)
    assert built.metrics[NDCG].value > 1.2 * built.metrics[NDCG].baselines["popularity"]
    assert built.params["blend"][off] == 0
    made = tables(built)
    suited = [
        world.kind(item) in (world.taste(user), "hit")
        for user, items in made["user_items"].items()
        for item in items[:4]
    ]
    assert len(suited) == 4 * USERS
    assert sum(suited) >= 0.9 * 4 * USERS
    assert len(made["similar_items"]) == 30
    stored = registry.evaluate_stored(
        "recs", spark, world.inputs(tmp_path / "again"), built.files[EVALUATION]
    )
    assert stored == {name: metric.value for name, metric in built.metrics.items()}


def test_models_are_compared_on_the_same_holdout(
    spark: SparkSession, world: World, tmp_path: Path
) -> None:
    compared = recs.compare(spark, world.inputs(tmp_path))
    assert list(compared) == ["popularity", "als", "ease", "blend"]
    popular = compared["popularity"][NDCG].value
    for name, metrics in compared.items():
        assert set(metrics) == {NDCG, RECALL, COVERAGE, TOP_SHARE, NOVELTY}
        assert metrics[NDCG].baselines == {"popularity": popular}
        assert name == "popularity" or metrics[NDCG].value > 1.2 * popular


def test_users_of_one_event_and_many_new_ids_are_taken_as_they_are(
    spark: SparkSession, new_world: Callable[..., World], tmp_path: Path
) -> None:
    """All have one genre, all ratings are the same, and most ids have just come."""
    world = new_world(recs={"list_size": 20, "exploration": {"share": 0.1}})
    newcomers = [10**17 + n for n in range(10 * USERS)]
    novelties = [3 * 10**16 + n for n in range(10 * len(KINDS))]

    def add_newcomers(events: pa.Table) -> pa.Table:
        events = events.filter(pc.greater_equal(events["rating"], 3.5))
        rows = events.slice(0, 1).to_pylist() * len(newcomers)
        more = [
            {**row, "user_id": user, "is_holdout": False}
            for row, user in zip(rows, newcomers, strict=True)
        ]
        events = pa.concat_tables([events, pa.Table.from_pylist(more, events.schema)])
        rating = pa.array([4.0] * len(events))
        return events.set_column(events.schema.get_field_index("rating"), "rating", rating)

    def add_novelties(items: pa.Table) -> pa.Table:
        rows = items.to_pylist() + [{"item_id": item} for item in novelties]
        return pa.Table.from_pylist([{**r, "genres": ["Film"]} for r in rows], items.schema)

    rewrite(world, "events", add_newcomers)
    rewrite(world, "items", add_novelties)
    made = tables(build(spark, world, tmp_path))
    assert set(made["user_items"]) == {*newcomers, *map(world.user_id, range(USERS))}
    assert made["popular"]["genre:Film"] == made["popular"]["all"]
    shown = set()
    for items in made["user_items"].values():
        assert len(items) == len(set(items)) == 20
        assert not set(items[:10]) & set(novelties)
        assert {items[10], items[15]} <= {*novelties, *map(world.item_id, range(30, 36))}
        shown |= set(items) & set(novelties)
    assert len(shown) > 0.8 * len(novelties)


@pytest.mark.parametrize("made", ["world"], indirect=True)
def test_the_same_run_twice_gives_the_same(spark: SparkSession, made: Made, tmp_path: Path) -> None:
    again = build(spark, made.world, tmp_path)
    assert again.metrics == made.built.metrics
    assert tables(again) == made.tables


def test_users_without_a_positive_get_popular_items_that_they_have_not_seen(
    spark: SparkSession, new_world: Callable[..., World], tmp_path: Path
) -> None:
    world = new_world(recs={"list_size": 8})
    grump = world.user_id(3)

    def dislike_all(events: Any) -> Any:
        rating = pc.if_else(pc.equal(events["user_id"], grump), 1.0, events["rating"])
        return events.set_column(events.schema.get_field_index("rating"), "rating", rating)

    rewrite(world, "events", dislike_all)
    made = tables(build(spark, world, tmp_path))
    assert len(made["user_items"]) == USERS
    unseen = [item for item in made["popular"]["all"] if item not in seen(world)[grump]]
    assert set(unseen) <= set(made["user_items"][grump])
    assert {len(items) for items in made["user_items"].values()} == {8}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(0, 0), "no events"),
        (lambda t: t.filter(pc.invert(t["is_holdout"])), "no holdout"),
        (lambda t: t.filter(pc.less(t["rating"], 3)), "no training positives"),
        (
            lambda t: t.filter(pc.or_(pc.invert(t["is_holdout"]), pc.less(t["rating"], 3))),
            "no holdout positives",
        ),
    ],
)
def test_data_that_nothing_can_be_learnt_from_is_refused_in_one_line(
    spark: SparkSession,
    new_world: Callable[..., World],
    tmp_path: Path,
    change: Callable[[Any], Any],
    message: str,
) -> None:
    world = new_world()
    rewrite(world, "events", change)
    for unit in ("recs", "embeddings"):
        with pytest.raises(DataError, match=message) as error:
            registry.build(unit, spark, world.inputs(tmp_path / unit))
        assert "\n" not in str(error.value)
