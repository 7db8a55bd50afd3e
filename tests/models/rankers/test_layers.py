"""Layers that the networks share."""

from __future__ import annotations

import numpy as np
import pytest


def test_dropping_ids_leaves_missing_ones_and_answers_alone() -> None:
    from pipelines.models.rankers.layers import IdDropout

    ids = np.array([0, 1, 2, 3] * 500, "int32")
    layer = IdDropout(0.5, seed=3)
    assert np.array_equal(np.asarray(layer(ids)), ids)
    dropped = np.asarray(layer(ids, training=True))
    assert (dropped[ids == 0] == 0).all()
    assert set(dropped[ids == 2]) == {1, 2}
    assert (dropped[ids >= 2] == 1).mean() == pytest.approx(0.5, abs=0.05)


def test_the_mean_of_nothing_is_zero() -> None:
    from pipelines.models.rankers.layers import masked_mean

    vectors = np.array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]], "float32")
    mask = np.array([[0.0, 1.0], [0.0, 0.0]], "float32")
    assert np.asarray(masked_mean(vectors, mask)).tolist() == [[3.0, 4.0], [0.0, 0.0]]


def test_the_activation_unit_gives_padding_no_weight() -> None:
    import keras

    from pipelines.models.rankers.layers import ActivationUnit

    # Or, once in some hundred times, all units of a row are dead.
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    candidate, history = rng.normal(size=(2, 4)), rng.normal(size=(2, 3, 4))
    present = np.array([[1, 1, 0], [0, 0, 0]], "float32")
    unit = ActivationUnit((8,))
    weights = np.asarray(unit(candidate.astype("f4"), history.astype("f4"), present))
    assert (weights[present == 0] == 0).all()
    assert (weights[present == 1] != 0).all()


def test_standardisation_is_that_of_keras_to_the_bit() -> None:
    import keras

    from pipelines.models.rankers.layers import Standardisation

    rng = np.random.default_rng(0)
    numbers = rng.normal(2000.0, 10.0, (1000, 5)).astype("f4")
    mean, variance = rng.normal(2000.0, 10.0, 5), rng.uniform(1e-6, 200.0, 5)
    theirs = keras.layers.Normalization(
        mean=mean.astype(np.float32), variance=variance.astype(np.float32)
    )
    ours = Standardisation(mean, variance)
    np.testing.assert_array_equal(np.asarray(ours(numbers)), np.asarray(theirs(numbers)))
    assert ours.trainable_weights == []
