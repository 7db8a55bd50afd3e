"""Every Keras ranker: it learns tastes, survives any input, and is served as it is."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import DataError
from pipelines.features.schema import ITEM_FEATURES, USER_FEATURES, USER_HISTORY
from pipelines.models import registry
from pipelines.models.base import Built
from pipelines.models_config import RANKERS, READ_HISTORY, Ranker
from pipelines.online.ranking_inputs import INPUTS, TEXT_INPUTS
from tests.models.world import World, assert_calibration, make_world, rewrite

#: As small as still learns tastes: most of a build's time is the tracing of its graphs.
SMALL: dict[str, Any] = {
    "dimension": 4,
    "hidden": (8,),
    "epochs": 12,
    "patience": 3,
    "batch_size": 32,
    "learning_rate": 0.01,
    "dropout": 0.0,
    "id_dropout": 0.1,
}
#: What only one ranker has.
OWN: dict[Ranker, dict[str, Any]] = {
    "two_tower": {"vector_size": 4},
    "wide_deep": {"crossed_buckets": 100},
    "din": {"attention": (4,)},
    "dien": {"epochs": 6, "patience": 1, "learning_rate": 0.02},
}
#: Shorter than most histories of the world.
HISTORY_LENGTH = 5


@pytest.fixture(scope="module")
def rankers_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    models: dict[str, Any] = {unit: {**SMALL, **OWN.get(unit, {})} for unit in RANKERS}
    world = make_world(tmp_path_factory.mktemp("world") / "w", **models)
    features = world.config.features.model_copy(update={"history_length": HISTORY_LENGTH})
    return replace(world, config=world.config.model_copy(update={"features": features}))


@pytest.fixture(scope="module")
def builds(rankers_world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[Ranker, Built]:
    """Each ranker, built when a test first asks for it."""

    class Builds(dict[Ranker, Built]):
        def __missing__(self, unit: Ranker) -> Built:
            folder = tmp_path_factory.mktemp(unit)
            self[unit] = registry.build(unit, None, rankers_world.inputs(folder))
            return self[unit]

    return Builds()


@functools.cache
def loaded_from(folder: Path) -> Any:
    import tensorflow as tf

    return tf.saved_model.load(str(folder))


def load(built: Built) -> Any:
    return loaded_from(built.files["saved_model"])


def ask(signature: Any, rows: list[dict[str, Any]], output: str = "score") -> Any:
    from pipelines.models.rankers.export import tensors

    names = list(signature.structured_input_signature[1])
    return signature(**tensors(rows, names))[output].numpy()


def inputs_of(unit: Ranker) -> set[str]:
    return {*INPUTS, *([USER_HISTORY] if unit in READ_HISTORY else [])}


@pytest.mark.parametrize("unit", RANKERS)
def test_it_learns_tastes(builds: dict[Ranker, Built], rankers_world: World, unit: Ranker) -> None:
    built = builds[unit]
    area, loss = built.metrics["auc"], built.metrics["log_loss"]
    # No mean of a user and of an item can tell the tastes apart.
    assert area.value > area.baselines["user_item_mean"]
    assert loss.value < loss.baselines["constant"]
    assert built.tables == []
    assert 1 <= built.params["chosen_epochs"] <= SMALL["epochs"]
    assert_calibration(built, rankers_world)


@pytest.mark.parametrize("unit", RANKERS)
def test_the_signatures_take_raw_features_and_no_label(
    builds: dict[Ranker, Built], unit: Ranker
) -> None:
    import tensorflow as tf

    loaded = load(builds[unit])
    towers = {"user_tower", "item_tower"} if unit == "two_tower" else set()
    assert set(loaded.signatures) == {"serving_default", "rank", *towers}
    for name in ("serving_default", "rank"):
        signature = loaded.signatures[name]
        _, inputs = signature.structured_input_signature
        assert set(inputs) == inputs_of(unit)
        for input_name, spec in inputs.items():
            is_list = input_name == USER_HISTORY
            assert spec.shape.as_list() == ([None, None] if is_list else [None])
            is_text = is_list or input_name in TEXT_INPUTS
            assert spec.dtype == (tf.string if is_text else tf.float32)
        assert list(signature.structured_outputs) == ["score"]


@pytest.mark.parametrize("unit", RANKERS)
def test_the_saved_model_answers_as_the_model_did(
    builds: dict[Ranker, Built], unit: Ranker
) -> None:
    loaded, golden = load(builds[unit]), builds[unit].golden
    assert len(golden) == 32
    scores = ask(loaded.signatures["serving_default"], [request.inputs for request in golden])
    assert scores == pytest.approx([request.score for request in golden], abs=1e-6)


@pytest.mark.parametrize("unit", RANKERS)
def test_one_user_against_many_candidates(builds: dict[Ranker, Built], unit: Ranker) -> None:
    loaded, rows = load(builds[unit]), [dict(r.inputs) for r in builds[unit].golden[2:8]]
    of_user = ("user_id", USER_HISTORY, *USER_FEATURES)
    user = {name: value for name, value in rows[0].items() if name in of_user}
    pairs = [{**row, **user} for row in rows]
    expected = ask(loaded.signatures["serving_default"], pairs)
    from pipelines.models.rankers.export import tensors

    names = list(inputs_of(unit))
    given = {
        name: column[:1] if name in of_user else column
        for name, column in tensors(pairs, names).items()
    }
    scores = loaded.signatures["rank"](**given)["score"].numpy()
    assert scores == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("unit", RANKERS)
def test_any_input_gets_a_finite_score(builds: dict[Ranker, Built], unit: Ranker) -> None:
    served = load(builds[unit])
    odd: dict[str, Any] = {
        "user_id": "nobody",
        "item_id": "\0",
        "user_genre_1": "Nope",
        USER_HISTORY: [f"unheard of {i}" for i in range(500)],
    }
    numbers = [{name: value for name in INPUTS if name not in TEXT_INPUTS} for value in (-5.0, 1e9)]
    rows = [{}, odd, *[{**odd, **row} for row in numbers], {"item_rating_count": math.nan}]
    scores = ask(served.signatures["serving_default"], rows)
    assert scores.shape == (len(rows),)
    assert np.all((scores >= 0) & (scores <= 1))
    assert ask(served.signatures["serving_default"], rows[:1]) == pytest.approx(
        scores[:1], abs=1e-6
    )


@pytest.mark.parametrize("unit", sorted(READ_HISTORY))
def test_padding_changes_nothing(builds: dict[Ranker, Built], unit: Ranker) -> None:
    served = load(builds[unit]).signatures["serving_default"]
    rows: list[dict[str, Any]] = [dict(request.inputs) for request in builds[unit].golden]
    row = next(row for row in rows if len(row[USER_HISTORY]) >= 3)
    padded = [{**row, USER_HISTORY: [*row[USER_HISTORY], *[""] * n]} for n in (0, 1, 20, 100)]
    scores = [ask(served, [p])[0] for p in padded]
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-7)
    shorter = {**row, USER_HISTORY: row[USER_HISTORY][:1]}
    assert ask(served, [shorter])[0] != pytest.approx(scores[0], abs=1e-7)


def test_towers_give_vectors_whose_product_is_the_score(builds: dict[Ranker, Built]) -> None:
    loaded, golden = load(builds["two_tower"]), builds["two_tower"].golden
    rows = [dict(request.inputs) for request in golden]
    user_inputs, item_inputs = (
        set(loaded.signatures[tower].structured_input_signature[1])
        for tower in ("user_tower", "item_tower")
    )
    assert user_inputs == {"user_id", *USER_FEATURES}
    assert item_inputs == {"item_id", *ITEM_FEATURES}
    users, items = (
        ask(loaded.signatures[tower], rows, "vector") for tower in ("user_tower", "item_tower")
    )
    scores = 1 / (1 + np.exp(-(users * items).sum(axis=1)))
    assert scores == pytest.approx([request.score for request in golden], abs=1e-5)


def test_warmup_requests_are_for_this_model_and_its_signatures(
    builds: dict[Ranker, Built],
) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    built = builds["din"]
    loaded = load(built)
    path = built.files["saved_model"] / "assets.extra" / "tf_serving_warmup_requests"
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert 1 <= len(records) <= 1000
    asked = set()
    for record in records:
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == "din"
        asked.add(request.model_spec.signature_name)
        inputs = {name: tf.constant(tf.make_ndarray(t)) for name, t in request.inputs.items()}
        served = loaded.signatures[request.model_spec.signature_name]
        assert np.isfinite(served(**inputs)["score"].numpy()).all()
    assert asked == {"serving_default", "rank"}


@pytest.mark.parametrize("unit", ["deepfm", "dien"])
def test_the_same_run_twice_gives_the_same(
    rankers_world: World, builds: dict[Ranker, Built], tmp_path: Path, unit: Ranker
) -> None:
    again = registry.build(unit, None, rankers_world.inputs(tmp_path))
    assert again.metrics == builds[unit].metrics
    assert again.golden == builds[unit].golden
    assert again.params == builds[unit].params


def test_what_is_kept_gives_the_same_metrics_again(
    rankers_world: World, builds: dict[Ranker, Built], tmp_path: Path
) -> None:
    built = builds["deepfm"]
    inputs = rankers_world.inputs(tmp_path)
    values = registry.evaluate_stored("deepfm", None, inputs, built.files["evaluation"])
    assert values == {name: metric.value for name, metric in built.metrics.items()}


def test_comparing_measures_as_building_does(
    rankers_world: World, builds: dict[Ranker, Built], tmp_path: Path
) -> None:
    found = registry.compare("neural_cf", None, rankers_world.inputs(tmp_path))
    assert found == {"neural_cf": builds["neural_cf"].metrics}


@pytest.mark.parametrize(
    ("label", "message"),
    [(0.0, "all 600 training labels are 0"), (1.0, "all 600 training labels are 1")],
)
def test_all_ratings_equal_is_refused(tmp_path: Path, label: float, message: str) -> None:
    world = make_world(tmp_path / "w", deepfm=SMALL)

    def same(samples: pa.Table) -> pa.Table:
        place = samples.schema.get_field_index("label")
        return samples.set_column(place, "label", pa.array([label] * len(samples)))

    rewrite(world, "samples", same)
    with pytest.raises(DataError, match=message):
        registry.build("deepfm", None, world.inputs(tmp_path / "work"))


def test_a_validation_slice_with_one_label_lets_training_run_its_course(tmp_path: Path) -> None:
    world = make_world(tmp_path / "w", deepfm={**SMALL, "epochs": 2})

    def unmarked(samples: pa.Table) -> pa.Table:
        place = samples.schema.get_field_index("is_validation")
        return samples.set_column(place, "is_validation", pa.array([False] * len(samples)))

    rewrite(world, "samples", unmarked)
    built = registry.build("deepfm", None, world.inputs(tmp_path / "work"))
    assert built.params["chosen_epochs"] == 2


def test_most_ids_of_the_holdout_are_new_and_one_genre_is_for_all(tmp_path: Path) -> None:
    world = make_world(tmp_path / "w", din={**SMALL, **OWN["din"], "epochs": 1})

    def strange(samples: pa.Table) -> pa.Table:
        # Every row of the holdout asks for an item that training never saw.
        holdout = samples["is_holdout"].to_pylist()
        ids = [
            10**17 + row if is_new else item
            for row, (item, is_new) in enumerate(
                zip(samples["item_id"].to_pylist(), holdout, strict=True)
            )
        ]
        place = samples.schema.get_field_index("item_id")
        changed = samples.set_column(place, "item_id", pa.array(ids, pa.int64()))
        for name in [n for n in samples.column_names if "genre" in n]:
            place = changed.schema.get_field_index(name)
            changed = changed.set_column(place, name, pa.array(["Film"] * len(samples)))
        return changed

    rewrite(world, "samples", strange)
    built = registry.build("din", None, world.inputs(tmp_path / "work"))
    assert 0.0 < built.metrics["auc"].value <= 1.0
    assert all(0.0 <= request.score <= 1.0 for request in built.golden)
    # What is released knows the new items; the fit that was evaluated on them does not.
    samples = pq.read_table(world.root / "samples")
    new = max(samples["item_id"].to_pylist())
    row = dict(built.golden[2].inputs)
    for name, is_known in (("saved_model", True), ("evaluation", False)):
        served = loaded_from(built.files[name]).signatures["serving_default"]
        of_new, of_nothing = ask(served, [{**row, "item_id": i} for i in (str(new), "nothing")])
        assert (of_new != of_nothing) == is_known, name
