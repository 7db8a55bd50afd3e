"""One traced loop for all fits: each has the weights of Keras' own training, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.models.rankers.samples import FITTING, TRAINING, VALIDATION, Samples
from pipelines.models_config import InterestRankerConfig
from tests.models.world import World, make_world, rewrite

if TYPE_CHECKING:
    import keras
    import pyarrow as pa
    import pyarrow.dataset as ds

    from pipelines.models.rankers.training import Trainer

_CONFIG: dict[str, Any] = {
    "dimension": 2,
    "interests": 2,
    "hidden": (3,),
    "epochs": 2,
    "batch_size": 100,
    "dropout": 0.2,
    "id_dropout": 0.3,
}


@pytest.fixture(scope="module")
def uneven_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which every part of the samples has words of its own."""
    world = make_world(tmp_path_factory.mktemp("world") / "w")

    def renamed(samples: pa.Table) -> pa.Table:
        import pyarrow as pa

        for name, many in (("user_id", 5), ("item_id", 3)):
            ids = [
                10**16 + row if row % many == 0 else word
                for row, word in enumerate(samples[name].to_pylist())
            ]
            place = samples.schema.get_field_index(name)
            samples = samples.set_column(place, name, pa.array(ids, pa.int64()))
        return samples

    rewrite(world, "samples", renamed)
    return world


def trainer_of(world: World, folder: Path, **changed: Any) -> Trainer:
    from pipelines.models.rankers.encoded import Shape
    from pipelines.models.rankers.interests import network
    from pipelines.models.rankers.training import Trainer

    config = InterestRankerConfig(**{**_CONFIG, **changed})
    samples = Samples(str(world.root / "samples"))
    return Trainer(network, config, samples, Shape.of(4), 3, folder, "test")


def fitted_by_keras(
    trainer: Trainer, chosen: ds.Expression, epochs: int, watched: ds.Expression
) -> tuple[keras.Model, list[float], list[float]]:
    """Return a network of its own, compiled and fitted by Keras, and its losses of each pass."""
    import keras

    from pipelines.models.rankers.encoded import columns, named

    def batches(encoded: Any, size: int, *order: int) -> Any:
        parts = list(encoded.parts(size, *order))

        class Batches(keras.utils.PyDataset):  # type: ignore[misc]
            def __len__(self) -> int:
                return len(parts)

            def __getitem__(self, place: int) -> Any:
                ids, numbers, labels = columns(parts[place])
                return named(ids, numbers, trainer.shape), labels

        return Batches()

    statistics = trainer.learn(chosen)
    network = trainer.untrained(statistics)
    network.compile(
        optimizer=keras.optimizers.Adam(trainer.config.learning_rate),
        loss="binary_crossentropy",
        steps_per_execution=3,
        jit_compile=False,
    )
    losses, watched_losses = [], []
    with (
        trainer.encoded(chosen, statistics) as encoded,
        trainer.encoded(watched, statistics) as validation,
    ):
        for number in range(epochs):
            history = network.fit(
                batches(encoded, trainer.config.batch_size, trainer.seed, number),
                validation_data=batches(validation, 4096),
                shuffle=False,
                verbose=0,
            ).history
            losses += history["loss"]
            watched_losses += history["val_loss"]
    return network, losses, watched_losses


def test_every_fit_has_the_weights_of_a_training_of_its_own(
    uneven_world: World, tmp_path: Path
) -> None:
    trainer = trainer_of(uneven_world, tmp_path)
    by_keras, losses, watched = fitted_by_keras(trainer, FITTING, 2, VALIDATION)
    assert len(trainer.learn(FITTING).items) < len(trainer.learn(None).items)

    # What was fitted before, to other rows and with other vocabularies, leaves no trace.
    before = trainer.fit(VALIDATION, 1, "before").network
    weights = [np.array(variable) for variable in before.variables]
    fitted = trainer.fit(FITTING, 2, "test").network
    for own, other in zip(fitted.variables, by_keras.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(own), np.asarray(other), own.path)
    # And a network that was given stays as it is.
    for own, other in zip(before.variables, weights, strict=True):
        np.testing.assert_array_equal(np.asarray(own), other, own.path)

    assert trainer.choose_epochs() == 1 + min(range(2), key=watched.__getitem__)
    with trainer.encoded(VALIDATION, trainer.learn(FITTING)) as validation:
        trainer.loop.take(fitted)
        assert trainer.loop.loss(validation) == watched[1]
    with trainer.encoded(FITTING, trainer.learn(FITTING)) as encoded:
        trainer.loop.take(trainer.untrained(trainer.learn(FITTING)))
        seen = list(trainer.loop.train(encoded, trainer.seed, 0))
    assert seen[-1][1] == losses[0]
    assert sum(rows for rows, _ in seen) == encoded.rows


@given(st.lists(st.sampled_from([0.3, 0.4, 0.5, 0.6]), min_size=1, max_size=8), st.integers(0, 3))
def test_training_stops_where_keras_would_stop(losses: list[float], patience: int) -> None:
    import keras

    from pipelines.models.rankers.training import best_pass, is_over

    stop = keras.callbacks.EarlyStopping("val_loss", patience=patience)
    model = keras.Model()
    model.stop_training = False
    stop.set_model(model)
    stop.on_train_begin()
    for passes, loss in enumerate(losses):
        # The monitor's direction, which Keras takes from the compiled model.
        stop.monitor_op = np.less
        stop.on_epoch_end(passes, {"val_loss": loss})
        assert is_over(losses[: passes + 1], patience) == model.stop_training
        if model.stop_training:
            break
    seen = losses[: passes + 1]
    assert best_pass(seen) == seen.index(min(seen))


def test_weights_of_another_network_do_not_fit(uneven_world: World, tmp_path: Path) -> None:
    trainer, wider = (trainer_of(uneven_world, tmp_path, dimension=size) for size in (2, 3))
    with pytest.raises(ValueError, match="do not fit into"):
        trainer.loop.take(wider.untrained(wider.learn(TRAINING)))
