"""`interest_ranker`: encoder and light model are the uncut network, and no other than it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipelines.models import registry
from pipelines.models.base import Built
from tests.models.world import KINDS, USERS, World, assert_calibration, make_world

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MODEL = {
    "dimension": 4,
    "interests": 2,
    "epochs": 12,
    "patience": 3,
    "batch_size": 32,
    "learning_rate": 0.02,
    "dropout": 0.0,
    "id_dropout": 0.1,
}


@pytest.fixture(scope="module")
def interests_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world") / "w", interest_ranker=MODEL)


@pytest.fixture(scope="module")
def built(
    spark: SparkSession, interests_world: World, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    folder = tmp_path_factory.mktemp("interests")
    return registry.build("interest_ranker", spark, interests_world.inputs(folder))


@pytest.fixture(scope="module")
def light(built: Built) -> Any:
    import tensorflow as tf

    return tf.saved_model.load(str(built.files["saved_model"]))


def test_it_learns_tastes_from_histories_alone(built: Built, interests_world: World) -> None:
    area = built.metrics["auc"]
    # The user's id is no input: only the history tells the tastes apart.
    assert area.value > area.baselines["user_item_mean"]
    stored = built.metrics["auc_as_stored"]
    assert stored.baselines == {"float32": area.value}
    assert stored.value == pytest.approx(area.value, abs=0.01)
    assert_calibration(built, interests_world)


def test_the_tables_are_complete_and_of_one_size(built: Built, interests_world: World) -> None:
    tables = {table.name: table for table in built.tables}
    assert {name: table.kind for name, table in tables.items()} == {
        "interests": "vector",
        "item_vectors": "vector",
    }
    users, items = (
        {row["id"]: row["value"] for row in tables[name].frame.collect()}
        for name in ("interests", "item_vectors")
    )
    assert set(users) == {interests_world.user_id(u) for u in range(USERS)}
    assert set(items) == {interests_world.item_id(i) for i in range(len(KINDS))}
    assert {len(v) for v in users.values()} == {8}
    assert {len(v) for v in items.values()} == {4}


def test_both_halves_together_are_the_uncut_network(interests_world: World, tmp_path: Path) -> None:
    import tensorflow as tf

    from pipelines.models.interest_ranker import LightModel, make_trainer
    from pipelines.models.rankers.export import ServedRanker, tensors
    from pipelines.models.rankers.interests import ENCODER, item_vectors
    from pipelines.models.rankers.samples import Samples

    trainer = make_trainer(interests_world.inputs(tmp_path))
    fitted = trainer.fit(None, 2, "test")
    network = fitted.network
    uncut = ServedRanker(fitted, trainer.shape)
    rows = Samples(trainer.samples.path).head(200, uncut.names)
    rows += [
        {**rows[0], "item_id": 12345, "user_history": []},
        {**rows[1], "user_history": [99, *rows[1]["user_history"]]},
        dict.fromkeys(uncut.names),
    ]
    raw = tensors(rows, uncut.names)
    whole = np.asarray(uncut(raw))

    encoded = {**uncut.encoder.user(raw), **uncut.encoder.item(raw)}
    interests = np.asarray(network.get_layer(ENCODER)(encoded["history"]))
    vectors = item_vectors(network)[encoded["item"]]
    cut = LightModel(fitted)
    names = [n for n in cut.names if n in raw]
    given = {
        **{name: raw[name] for name in names},
        "interests": tf.constant(interests),
        "item_vector": tf.constant(vectors),
    }
    np.testing.assert_array_equal(np.asarray(cut(given)), whole)

    # What Redis does not have is missing: NaN stands for a user without history, an unknown item.
    absent = np.where(np.asarray(encoded["history"])[:, :1] == 0, np.nan, interests)
    unknown = np.where(np.asarray(encoded["item"])[:, None] == 1, np.nan, vectors)
    missing = {
        **given,
        "interests": tf.constant(absent, tf.float32),
        "item_vector": tf.constant(unknown, tf.float32),
    }
    assert np.isnan(absent).any()
    assert np.isnan(unknown).any()
    np.testing.assert_array_equal(np.asarray(cut(missing)), whole)


def test_golden_requests_are_answered_by_the_saved_model(built: Built, light: Any) -> None:
    from pipelines.models.interest_ranker import LIGHT_INPUTS
    from pipelines.models.rankers.export import tensors

    assert len(built.golden) == 32
    rows = [dict(request.inputs) for request in built.golden]
    scores = light.signatures["serving_default"](**tensors(rows, LIGHT_INPUTS))["score"].numpy()
    assert scores == pytest.approx([request.score for request in built.golden], abs=1e-6)
    assert len(set(scores.round(6))) > 10
    # As it will be read from Redis: float16.
    vectors = np.array([row["interests"] for row in rows[1:]])
    np.testing.assert_array_equal(vectors, vectors.astype(np.float16))
    again = type(built.golden[0]).model_validate_json(built.golden[0].model_dump_json())
    assert again == built.golden[0]


def test_one_user_against_many_candidates(built: Built, light: Any) -> None:
    from pipelines.models.interest_ranker import LIGHT_INPUTS
    from pipelines.models.rankers.export import tensors
    from pipelines.online.ranking_inputs import is_user_input

    rows = [dict(request.inputs) for request in built.golden[1:6]]
    of_user = {name: value for name, value in rows[0].items() if is_user_input(name)}
    raw = tensors([{**row, **of_user} for row in rows], LIGHT_INPUTS)
    expected = light.signatures["serving_default"](**raw)["score"].numpy()
    once = {name: c[:1] if is_user_input(name) else c for name, c in raw.items()}
    assert light.signatures["rank"](**once)["score"].numpy() == pytest.approx(expected, abs=1e-6)


def test_what_is_kept_gives_the_same_metrics_again(
    spark: SparkSession, interests_world: World, built: Built, tmp_path: Path
) -> None:
    values = registry.evaluate_stored(
        "interest_ranker", spark, interests_world.inputs(tmp_path), built.files["evaluation"]
    )
    expected = {name: metric.value for name, metric in built.metrics.items()}
    del expected["auc_as_stored"]
    assert values == expected


def test_the_same_run_twice_gives_the_same(
    spark: SparkSession, interests_world: World, built: Built, tmp_path: Path
) -> None:
    again = registry.build("interest_ranker", spark, interests_world.inputs(tmp_path))
    assert again.metrics == built.metrics
    assert again.golden == built.golden
