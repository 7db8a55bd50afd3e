"""`recs`: users get what suits their taste, nothing they have seen, and the same again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.errors import DataError
from pipelines.models import registry
from pipelines.models.base import Built
from tests.models.world import KINDS, USERS, World, rewrite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def build(spark: SparkSession, world: World, folder: Path) -> Built:
    return registry.build("recs", spark, world.inputs(folder))


def tables(built: Built) -> dict[str, dict[Any, Any]]:
    return {t.name: {r["id"]: r["value"] for r in t.frame.collect()} for t in built.tables}


def seen(world: World) -> dict[Any, set[Any]]:
    events = pq.read_table(world.root / "events")
    result: dict[Any, set[Any]] = {}
    for row in events.select(["user_id", "item_id"]).to_pylist():
        result.setdefault(row["user_id"], set()).add(row["item_id"])
    return result


@pytest.mark.parametrize("name", ["world", "string_world"])
def test_lists_suit_the_users_and_metrics_beat_popularity(
    spark: SparkSession, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    world: World = request.getfixturevalue(name)
    built = build(spark, world, tmp_path)
    made = tables(built)
    assert set(made) == {"user_items", "popular", "titles"}
    assert len(made["user_items"]) == USERS

    already = seen(world)
    suited = 0
    for user, items in made["user_items"].items():
        assert not already[user] & set(items)
        # The catalogue is smaller than the list: everything unseen is in it, once.
        assert len(items) == len(set(items)) == len(KINDS) - len(already[user])
        suited += sum(world.kind(item) in (world.taste(user), "hit") for item in items[:4])
    assert suited >= 0.9 * 4 * USERS

    assert list(made["popular"]) == ["all"]
    popular = made["popular"]["all"]
    assert sorted(popular) == sorted(world.item_id(i) for i in range(len(KINDS)))
    assert {world.kind(item) for item in popular[:4]} == {"hit"}
    assert {world.kind(item) for item in popular[-6:]} == {"dud"}
    assert made["titles"][world.item_id(0)] == "taste 0 0"

    ndcg = built.metrics["ndcg_at_10"]
    assert ndcg.value > 1.2 * ndcg.baselines["popularity"]
    assert built.metrics["recall_at_50"].value == pytest.approx(1.0)
    assert built.metrics["coverage"].value == 1.0


def test_the_same_run_twice_gives_the_same(
    spark: SparkSession, world: World, tmp_path: Path
) -> None:
    first, second = (build(spark, world, tmp_path / str(i)) for i in range(2))
    assert first.metrics == second.metrics
    assert tables(first) == tables(second)


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
    assert made["user_items"][grump][: len(unseen)] == unseen
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
