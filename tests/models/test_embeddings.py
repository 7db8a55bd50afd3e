"""`embeddings`: neighbours share a taste, vectors have length 1, and the same comes again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.models import registry
from pipelines.models.base import Built
from pipelines.models.embeddings import nearest
from pipelines.models.item2vec import fit_embeddings
from pipelines.models_config import EmbeddingsConfig
from tests.models.world import USERS, World, make_world

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MODEL = {"dimension": 8, "iterations": 20, "neighbours": 5}


@pytest.fixture(scope="module")
def taste_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world") / "emb", "string", embeddings=MODEL)


def tables(built: Built) -> dict[str, dict[Any, Any]]:
    return {t.name: {r["id"]: r["value"] for r in t.frame.collect()} for t in built.tables}


def test_neighbours_and_users_have_the_items_taste_and_a_second_run_gives_the_same(
    spark: SparkSession, taste_world: World, tmp_path: Path
) -> None:
    built = registry.build("embeddings", spark, taste_world.inputs(tmp_path / "first"))
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
    again = registry.build("embeddings", spark, taste_world.inputs(tmp_path / "second"))
    assert again.metrics == built.metrics
    assert tables(again) == made


def test_old_likes_weigh_less_and_rare_items_have_no_vector(spark: SparkSession) -> None:
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
    config = EmbeddingsConfig(dimension=4, iterations=2, min_count=2, user_half_life_days=50.0)
    fitted = fit_embeddings(frame, config, seed=1)
    items = {row["item_id"]: np.array(row["vector"]) for row in fitted.items.collect()}
    users = {row["user_id"]: np.array(row["vector"]) for row in fitted.users.collect()}
    assert set(items) == set("abcd")
    assert 98 not in users
    # Two half-lives old: a quarter of the weight.
    mean = 0.25 * items["a"] + items["c"]
    assert users[99] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    with pytest.raises(DataError, match="min_count"):
        fit_embeddings(frame, config.model_copy(update={"min_count": 1000}), seed=1)


def test_an_item_alone_has_no_neighbours(spark: SparkSession) -> None:
    alone = spark.createDataFrame([("a", [1.0, 0.0])], "item_id string, vector array<float>")
    with pytest.raises(DataError, match="fewer than two items"):
        nearest(alone, 5)
    two = spark.createDataFrame(
        [("a", [1.0, 0.0]), ("b", [0.6, 0.8])], "item_id string, vector array<float>"
    )
    assert {r["id"]: r["value"] for r in nearest(two, 5).collect()} == {"a": ["b"], "b": ["a"]}
