"""The training loop: one traced graph for all fits of a build.

Keras' own ``fit`` traces its step twice for each model, and its iterators, optionals and conditions
cost these small networks as much as their arithmetic. Here a graph takes a block of encoded rows
and runs Keras' own steps over slices of it; and since vocabularies of parts of the samples differ
only in their sizes, one graph over the widest tables serves them all: rows beyond a vocabulary are
never looked up, have no gradient, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from pipelines.features.schema import NUMBERS
from pipelines.models.rankers.encoded import EncodedSamples, Shape, columns, named

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Steps that run as one call: between two of them Python tells how far training is.
_STEPS_AT_ONCE = 32
_SCORED_AT_ONCE = 4096


class TrainingLoop:
    """Trains networks that are `widest` but for fewer rows of their weights.

    It works on weights of its own: :meth:`take` brings a network's there, :meth:`give` back.
    """

    def __init__(
        self, widest: keras.Model, shape: Shape, batch_size: int, learning_rate: float
    ) -> None:
        self._model = widest
        self._shape = shape
        self._batch_size = batch_size
        self._learning_rate = learning_rate
        widest.compile(
            optimizer=keras.optimizers.Adam(learning_rate),
            loss="binary_crossentropy",
            jit_compile=False,
        )
        widest.optimizer.build(widest.trainable_variables)
        self._scored_at_once = max(_SCORED_AT_ONCE, batch_size)
        self._train = self._over_slices(widest.train_step, batch_size)
        self._test = self._over_slices(widest.test_step, self._scored_at_once)

    def take(self, network: keras.Model) -> None:
        """Begin anew with the weights and random states of `network`."""
        for own, other in zip(self._model.variables, network.variables, strict=True):
            own.assign(_resized(np.asarray(other), own.shape))
        for state in self._model.optimizer.variables:
            state.assign(np.zeros(state.shape, state.dtype))
        # It is one of the states.
        self._model.optimizer.learning_rate = self._learning_rate

    def give(self, network: keras.Model) -> None:
        """Bring the weights and random states to `network`, which may have smaller tables."""
        for own, other in zip(self._model.variables, network.variables, strict=True):
            other.assign(_resized(np.asarray(own), other.shape))

    def train(self, encoded: EncodedSamples, seed: int, number: int) -> Iterator[tuple[int, float]]:
        """Train for one pass, in the order of `seed` and the pass's `number`.

        Yields how many rows were seen since the last time, and the mean loss of the pass so far.
        """
        self._model.reset_metrics()
        at_once = _STEPS_AT_ONCE * self._batch_size
        for part in encoded.parts(at_once, seed, number):
            with _one_after_the_other():
                self._train(*columns(part))
            yield len(part), self._loss()

    def loss(self, encoded: EncodedSamples) -> float:
        """Return the mean loss of rows that are not trained on."""
        self._model.reset_metrics()
        for part in encoded.parts(self._scored_at_once):
            with _one_after_the_other():
                self._test(*columns(part))
        return self._loss()

    def _loss(self) -> float:
        return float(self._model.get_metrics_result()["loss"])

    def _over_slices(self, step: Callable[[Any], Any], size: int) -> Any:
        """Return a graph that runs `step` on slices of `size` rows, one after the other."""

        def run(ids: Any, numbers: Any, labels: Any) -> None:
            count = tf.shape(labels)[0]

            def one(start: Any) -> tuple[Any]:
                end = tf.minimum(start + size, count)
                step((named(ids[start:end], numbers[start:end], self._shape), labels[start:end]))
                return (end,)

            tf.while_loop(lambda start: start < count, one, (0,), parallel_iterations=1)

        specs = (
            tf.TensorSpec([None, sum(self._shape.ids.values())], tf.int32),
            tf.TensorSpec([None, len(NUMBERS)], tf.float32),
            tf.TensorSpec([None], tf.float32),
        )
        return tf.function(run, input_signature=specs, autograph=False)


def _one_after_the_other() -> AbstractContextManager[None]:
    """Let TensorFlow run the operations of a graph in one order, always the same.

    A sum of several gradients (AddN) begins with the one whose buffer nobody else holds any more:
    with the usual executor that depends on which operation has just ended.
    """
    in_order: AbstractContextManager[None] = context.function_executor_type(
        "SINGLE_THREADED_EXECUTOR"
    )
    return in_order


def _resized(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return `values` with as many rows as `shape` says: cut, or filled up with 0."""
    if values.shape == tuple(shape):
        return values
    if values.shape[1:] != tuple(shape)[1:]:
        raise ValueError(f"weights of {values.shape} do not fit into {tuple(shape)}")
    rows = min(len(values), shape[0])
    resized = np.zeros(shape, values.dtype)
    resized[:rows] = values[:rows]
    return resized
