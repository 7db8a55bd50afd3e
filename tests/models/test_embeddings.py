"""`embeddings`: neighbours share a taste, vectors have length 1, and the same comes again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines.errors import DataError
from pipelines.models import registry
from pipelines.models.base import Built
from pipelines.models.embeddings import compare, fit_embeddings, nearest
from pipelines.models.stored import EVALUATION
from pipelines.models_config import EMBEDDING_MODELS, EmbeddingModel, EmbeddingsConfig
from tests.models.world import USERS, World, make_world, rewrite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SETTINGS: dict[str, Any] = {
    "dimension": 8,
    "neighbours": 5,
    "item2vec": {"iterations": 20},
    "graph": {"walk_length": 5, "walks": 10, "iterations": 3, "q": 0.5},
}


@pytest.fixture(scope="module", params=EMBEDDING_MODELS)
def taste_world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world for each of the models."""
    root = tmp_path_factory.mktemp("world") / "emb"
    return make_world(root, "string", embeddings={"model": request.param, **SETTINGS})


def tables(built: Built) -> dict[str, dict[Any, Any]]:
    return {t.name: {r["id"]: r["value"] for r in t.frame.collect()} for t in built.tables}


@pytest.fixture(scope="module")
def built(
    spark: SparkSession, taste_world: World, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    return registry.build("embeddings", spark, taste_world.inputs(tmp_path_factory.mktemp("emb")))


def test_neighbours_and_users_have_the_items_taste(built: Built, taste_world: World) -> None:
    made = tables(built)
    assert set(made) == {"item_vectors", "user_vectors", "neighbours", "titles"}
    items = {item: np.array(vector) for item, vector in made["item_vectors"].items()}
    users = {user: np.array(vector) for user, vector in made["user_vectors"].items()}
    assert set(made["neighbours"]) == set(items)
    assert len(users) == USERS
    for vector in (*items.values(), *users.values()):
        assert vector.shape == (8,)
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)

    same = []
    for item, near in made["neighbours"].items():
        cosines = [items[other] @ items[item] for other in near]
        assert cosines == sorted(cosines, reverse=True)
        others = [vector @ items[item] for other, vector in items.items() if other != item]
        assert cosines == pytest.approx(sorted(others, reverse=True)[:5], abs=1e-5)
        if taste_world.kind(item).startswith("taste"):
            same += [taste_world.kind(other) == taste_world.kind(item) for other in near]
    assert np.mean(same) > 0.8
    suited = []
    for user, vector in users.items():
        best = max(items, key=lambda item: float(items[item] @ vector))
        suited.append(taste_world.kind(best) in (taste_world.taste(user), "hit"))
    assert np.mean(suited) > 0.9

    assert set(built.metrics["ndcg_at_10"].baselines) == {"popularity", "random"}
    assert built.metrics["ndcg_at_10"].value > built.metrics["ndcg_at_10"].baselines["random"]
    assert built.metrics["recall_at_50_as_stored"].value == pytest.approx(1.0)
    assert built.metrics["recall_at_50_over_random"].value == pytest.approx(1.0)
    agreement = built.metrics["neighbours_sharing_a_genre"]
    assert agreement.value >= agreement.baselines["random pairs"]


def test_the_kept_fit_is_judged_as_it_was(
    spark: SparkSession, taste_world: World, built: Built, tmp_path: Path
) -> None:
    inputs = taste_world.inputs(tmp_path)
    again = registry.evaluate_stored("embeddings", spark, inputs, built.files[EVALUATION])
    assert again == {name: built.metrics[name].value for name in ("ndcg_at_10", "recall_at_50")}


@pytest.mark.parametrize("model", EMBEDDING_MODELS)
def test_old_likes_weigh_less_and_rare_items_have_no_vector(
    spark: SparkSession, model: EmbeddingModel
) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    days = timedelta(days=1)
    events = [(u, i, now - 50 * days, True, False) for u in range(20) for i in "ab"]
    events += [(u, i, now - 50 * days, True, False) for u in range(20, 40) for i in "cd"]
    events += [(99, "a", now - 100 * days, True, False), (99, "c", now, True, False)]
    events += [(98, "rare", now, True, False), (99, "d", now, False, False)]
    schema = (
        "user_id long, item_id string, timestamp timestamp, is_positive boolean, is_holdout boolean"
    )
    frame = spark.createDataFrame(events, schema)
    config = EmbeddingsConfig(dimension=4, min_count=2, user_half_life_days=50.0)
    fitted = fit_embeddings(frame, model, config, seed=1)
    items = {row["item_id"]: np.array(row["vector"]) for row in fitted.items.collect()}
    users = {row["user_id"]: np.array(row["vector"]) for row in fitted.users.collect()}
    assert set(items) == set("abcd")
    assert 98 not in users
    # Two half-lives old: a quarter of the weight.
    mean = 0.25 * items["a"] + items["c"]
    assert users[99] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    with pytest.raises(DataError, match="min_count"):
        fit_embeddings(frame, model, config.model_copy(update={"min_count": 1000}), seed=1)


def test_vectors_do_not_depend_on_how_events_are_spread(
    spark: SparkSession, taste_world: World
) -> None:
    settings = taste_world.config.models.embeddings
    events = spark.read.parquet(taste_world.inputs(taste_world.root).paths.events)
    events = events.withColumn("is_positive", events["rating"] >= 3.5)

    def vectors(parts: int, **changes: int) -> dict[Any, list[float]]:
        config = settings.model_copy(update=changes)
        fitted = fit_embeddings(events.repartition(parts, "rating"), settings.model, config, 1)
        return {row["item_id"]: row["vector"] for row in fitted.items.collect()}

    local = vectors(1)
    assert vectors(3) == local
    # Spark's, where they don't fit.
    first = vectors(1, local_words=0)
    assert vectors(3, local_words=0) == first != local
    assert vectors(1, local_words=0, partitions=2).keys() == first.keys() == local.keys()
    for found in (local, first):
        assert _share_of_the_same_taste(found, taste_world) > 0.8


def _share_of_the_same_taste(vectors: dict[Any, list[float]], world: World) -> float:
    """Return how many of the five nearest to an item of a taste are of that taste."""
    items = list(vectors)
    kinds = np.array([world.kind(item) for item in items])
    matrix = np.array([vectors[item] for item in items])
    cosines = matrix @ matrix.T
    np.fill_diagonal(cosines, -1)
    near = np.argsort(-cosines, axis=1)[:, :5]
    same = kinds[near] == kinds[:, None]
    return float(same[[kind.startswith("taste") for kind in kinds]].mean())


def test_all_models_are_compared_and_a_second_run_gives_the_same(
    spark: SparkSession, taste_world: World, built: Built, tmp_path: Path
) -> None:
    compared = compare(spark, taste_world.inputs(tmp_path))
    assert tuple(compared) == EMBEDDING_MODELS
    one, other = compared.values()
    assert set(one) == set(other) == set(built.metrics)
    again = compared[built.params["model"]]
    for name in ("ndcg_at_10", "recall_at_50", "recall_at_50_as_stored"):
        assert again[name] == built.metrics[name]
    assert one["ndcg_at_10"].baselines == other["ndcg_at_10"].baselines


def liked_alone(events: pa.Table) -> pa.Table:
    """Leave each user one positive event to train on."""
    chosen = pc.and_(pc.greater(events["rating"], 3.5), pc.invert(events["is_holdout"]))
    liked = events.filter(chosen).to_pylist()
    firsts = {row["user_id"]: row for row in reversed(liked)}
    rest = events.filter(pc.invert(chosen))
    return pa.concat_tables([rest, pa.Table.from_pylist(list(firsts.values()), events.schema)])


def ten_times_more_new_ids(events: pa.Table) -> pa.Table:
    """Add ten new users with an event each, of new items, for every event of the holdout."""
    held_out = events.filter(events["is_holdout"]).to_pylist()
    new = [
        {**row, "user_id": f"new-{i}-{n}", "item_id": f"novel-{i}-{n}"}
        for i, row in enumerate(held_out)
        for n in range(10)
    ]
    return pa.concat_tables([events, pa.Table.from_pylist(new, events.schema)])


def all_equal(events: pa.Table) -> pa.Table:
    place = events.schema.get_field_index("rating")
    return events.set_column(place, "rating", pa.array([1.0] * len(events)))


def one_genre(items: pa.Table) -> pa.Table:
    place = items.schema.get_field_index("genres")
    genres = pa.array([["Film"]] * len(items), items.schema.field("genres").type)
    return items.set_column(place, "genres", genres)


@pytest.mark.parametrize("model", EMBEDDING_MODELS)
def test_odd_data_are_learnt_from_or_refused_in_one_line(
    spark: SparkSession, new_world: Callable[..., World], tmp_path: Path, model: EmbeddingModel
) -> None:
    def changed(*changes: tuple[str, Callable[[pa.Table], pa.Table]]) -> World:
        world = new_world(id_type="string", embeddings={"model": model, **SETTINGS})
        for name, change in changes:
            rewrite(world, name, change)
        return world

    equal = changed(("events", all_equal))
    with pytest.raises(DataError, match="no training positives") as refused:
        registry.build("embeddings", spark, equal.inputs(tmp_path / "equal"))
    assert "\n" not in str(refused.value)

    alone = changed(("events", liked_alone))
    if model == "graph":
        with pytest.raises(DataError, match="two different positive items"):
            registry.build("embeddings", spark, alone.inputs(tmp_path / "alone"))

    crowded = changed(("events", ten_times_more_new_ids), ("items", one_genre))
    built = registry.build("embeddings", spark, crowded.inputs(tmp_path / "crowded"))
    agreement = built.metrics["neighbours_sharing_a_genre"]
    assert agreement.value == agreement.baselines["random pairs"] == 1.0
    assert 0 < built.metrics["ndcg_at_10"].value < 1


def test_an_item_alone_has_no_neighbours(spark: SparkSession) -> None:
    alone = spark.createDataFrame([("a", [1.0, 0.0])], "item_id string, vector array<float>")
    with pytest.raises(DataError, match="fewer than two items"):
        nearest(alone, 5)
    two = spark.createDataFrame(
        [("a", [1.0, 0.0]), ("b", [0.6, 0.8])], "item_id string, vector array<float>"
    )
    assert {r["id"]: r["value"] for r in nearest(two, 5).collect()} == {"a": ["b"], "b": ["a"]}
