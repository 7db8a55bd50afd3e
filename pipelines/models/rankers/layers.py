"""Layers that the networks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from pipelines.models.rankers.encoded import MISSING, UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray


@keras.saving.register_keras_serializable("ferry")
class IdDropout(keras.layers.Layer):  # type: ignore[misc]
    """Replaces known ids, of any shape, by the unknown one, at random and in training only.

    Otherwise the vector of unknown ids would be the one thing that is never trained, and it is
    what every new user and item gets.
    """

    def __init__(self, rate: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed)

    def call(self, ids: Any, training: bool = False) -> Any:
        """Return ids of the same shape and type."""
        if not training or self.rate == 0:
            return ids
        drawn = keras.random.uniform(ops.shape(ids), seed=self._generator) < self.rate
        dropped = ops.logical_and(drawn, ops.not_equal(ids, MISSING))
        return ops.where(dropped, ops.full_like(ids, UNKNOWN), ids)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable("ferry")
class Standardisation(keras.layers.Layer):  # type: ignore[misc]
    """Brings numbers [n, k] to mean 0 and variance 1; both moments are [k].

    The moments are weights, where those of Keras' own layer belong to one graph: so one graph
    serves for moments of any samples.
    """

    def __init__(
        self, mean: NDArray[np.floating], variance: NDArray[np.floating], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._moments = {
            "mean": np.asarray(mean, np.float32),
            "deviation": np.sqrt(np.asarray(variance, np.float32)),
        }

    def build(self, shape: Any) -> None:
        """Make the moments' weights."""
        self._mean, self._deviation = (
            self.add_weight(
                shape=values.shape,
                initializer=keras.initializers.Constant(values),
                trainable=False,
                name=name,
            )
            for name, values in self._moments.items()
        )
        self.built = True

    def call(self, numbers: Any) -> Any:
        """Return numbers of the same shape."""
        return (numbers - self._mean) / self._deviation


def masked_mean(vectors: Any, mask: Any) -> Any:
    """Return the mean [n, dimension] of those `vectors` [n, k, dimension] where `mask` [n, k] is 1.

    0 where it is 1 nowhere.
    """
    total = ops.sum(vectors * ops.expand_dims(mask, -1), axis=1)
    return total / ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1.0)


def perceptron(hidden: Any, sizes: Sequence[int], dropout: float, seed: int) -> Any:
    """Return `hidden` [n, any] after dense layers of `sizes` with ReLU and dropout."""
    for number, size in enumerate(sizes):
        hidden = keras.layers.Dense(size, activation="relu")(hidden)
        hidden = keras.layers.Dropout(dropout, seed=seed + number)(hidden)
    return hidden


def probability(logit: Any) -> Any:
    """Return the probability [n] of a logit [n, 1]."""
    return ops.squeeze(keras.layers.Activation("sigmoid")(logit), axis=-1)


@keras.saving.register_keras_serializable("ferry")
class ActivationUnit(keras.layers.Layer):  # type: ignore[misc]
    """How much each item of a history matters for a candidate (DIN, Zhou et al. 2018).

    A small network reads both vectors, their difference and product. As in the paper the weights
    are not normalised, so that the intensity of interest is kept; padding gets exactly 0.
    """

    def __init__(self, hidden: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = tuple(hidden)
        self._layers_of_unit = [keras.layers.Dense(size, activation="relu") for size in self.hidden]
        self._weight = keras.layers.Dense(1)

    def build(self, candidate_shape: Any, history_shape: Any, present_shape: Any) -> None:
        """Make the weights, for vectors of the candidate's size."""
        width: tuple[int | None, ...] = (None, None, 4 * candidate_shape[-1])
        for layer in (*self._layers_of_unit, self._weight):
            layer.build(width)
            width = (None, None, layer.units)
        self.built = True

    # "present", since Keras takes an argument "mask" for one of its own.
    def call(self, candidate: Any, history: Any, present: Any) -> Any:
        """Return weights [n, k] of history [n, k, d] for a candidate [n, d].

        Where `present` [n, k] is 0 and not 1 there is padding, and the weight is exactly 0.
        """
        wide = ops.expand_dims(candidate, 1) + ops.zeros_like(history)
        read = ops.concatenate([history, wide, history - wide, history * wide], axis=-1)
        for layer in self._layers_of_unit:
            read = layer(read)
        return ops.squeeze(self._weight(read), axis=-1) * present

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "hidden": self.hidden}
