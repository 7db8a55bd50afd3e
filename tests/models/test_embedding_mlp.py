"""`embedding_mlp`: it learns tastes, survives any input, and its SavedModel answers as it does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.models import registry
from pipelines.models.base import Built
from pipelines.models.ranker_data import TRAINING, Samples
from pipelines.online.ranking_inputs import INPUTS, TEXT_INPUTS
from tests.models.world import KINDS, USERS, World, make_world

MODEL = {"epochs": 12, "batch_size": 32, "learning_rate": 0.01, "dropout": 0.0}


@pytest.fixture(scope="module")
def mlp_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world") / "mlp", embedding_mlp=MODEL)


@pytest.fixture(scope="module")
def built(mlp_world: World, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return registry.build("embedding_mlp", None, mlp_world.inputs(tmp_path_factory.mktemp("mlp")))


@pytest.fixture(scope="module")
def served(built: Built) -> Any:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(built.files["saved_model"]))
    signature = loaded.signatures["serving_default"]
    signature.loaded = loaded  # A signature alone does not keep the model's variables alive.
    return signature


def ask(served: Any, rows: list[dict[str, Any]]) -> Any:
    from pipelines.models.saved_model import tensors

    return served(**tensors(rows))["score"].numpy()


def test_it_learns_tastes(built: Built) -> None:
    area, loss = built.metrics["auc"], built.metrics["log_loss"]
    # No mean of a user and of an item can tell the tastes apart.
    assert area.value > area.baselines["user_item_mean"]
    assert loss.value < loss.baselines["constant"]
    assert built.tables == []


def test_the_signature_takes_raw_features(served: Any) -> None:
    import tensorflow as tf

    _, inputs = served.structured_input_signature
    assert set(inputs) == set(INPUTS)
    for name, spec in inputs.items():
        assert spec.shape.as_list() == [None]
        assert spec.dtype == (tf.string if name in TEXT_INPUTS else tf.float32)
    (score,) = served.structured_outputs.values()
    assert list(served.structured_outputs) == ["score"]
    assert (score.shape.as_list(), score.dtype) == ([None], tf.float32)


def test_the_saved_model_answers_as_the_model_did(built: Built, served: Any) -> None:
    assert len(built.golden) == 32
    scores = ask(served, [request.inputs for request in built.golden])
    assert scores == pytest.approx([request.score for request in built.golden], abs=1e-6)
    assert built.golden[0].inputs == dict.fromkeys(built.golden[0].inputs)


def test_any_input_gets_a_finite_score(served: Any) -> None:
    odd: dict[str, Any] = {"user_id": "nobody", "item_id": "\0", "user_genre_1": "Nope"}
    numbers = [{name: value for name in INPUTS if name not in TEXT_INPUTS} for value in (-5.0, 1e9)]
    rows = [{}, odd, *[{**odd, **row} for row in numbers], {"item_rating_count": math.nan}]
    scores = ask(served, rows)
    assert scores.shape == (len(rows),)
    assert np.all((scores >= 0) & (scores <= 1))
    assert ask(served, rows[:1]) == pytest.approx(scores[:1], abs=1e-6)


def test_warmup_requests_are_for_this_model_and_signature(built: Built, served: Any) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path = built.files["saved_model"] / "assets.extra" / "tf_serving_warmup_requests"
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert 1 <= len(records) <= 1000
    for record in records:
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == "embedding_mlp"
        inputs = {name: tf.constant(tf.make_ndarray(t)) for name, t in request.inputs.items()}
        assert np.isfinite(served(**inputs)["score"].numpy()).all()


def test_the_same_run_twice_gives_the_same(mlp_world: World, built: Built, tmp_path: Path) -> None:
    again = registry.build("embedding_mlp", None, mlp_world.inputs(tmp_path))
    assert again.metrics == built.metrics
    assert again.golden == built.golden


def test_batches_have_every_chosen_row_once_in_an_order_that_the_seed_gives(
    world: World, string_world: World
) -> None:
    samples = Samples(str(string_world.root / "samples"))

    def keys(seed: int | None) -> list[tuple[str, str]]:
        batches = [columns for columns, _ in samples.batches(TRAINING, 64, seed)]
        assert max(len(columns["user_id"]) for columns in batches) == 64
        return [k for c in batches for k in zip(c["user_id"], c["item_id"], strict=True)]

    assert keys(1) == keys(1)
    assert keys(1) != keys(2)
    assert sorted(keys(1)) == sorted(keys(None))
    assert len(set(keys(None))) == samples.count(TRAINING) == 15 * USERS
    first, _ = next(Samples(str(world.root / "samples")).batches(None, 8))
    assert first["user_rated_1"][0] == ""
    assert math.isnan(first["user_rating_mean"][0])
    assert first["item_id"].dtype == object
    assert first["release_year"].dtype == np.float32


def test_statistics_are_those_of_the_chosen_rows(world: World) -> None:
    samples = Samples(str(world.root / "samples"))
    everything = samples.statistics(None, 1000)
    assert len(everything.users) == USERS
    assert len(everything.items) == len(KINDS)
    assert set(everything.genres) == {"Film", "Taste 0", "Taste 1", "Hit", "Dud"}
    assert samples.statistics(TRAINING, 3).items == samples.statistics(TRAINING, 1000).items[:3]
    years = [row["release_year"] for row in samples.head(10**6) if row["release_year"] is not None]
    place = 5  # Of release_year in NUMBERS.
    assert everything.mean[place] == pytest.approx(np.mean(years))
    assert everything.variance[place] == pytest.approx(np.var(years))
