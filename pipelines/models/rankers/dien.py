"""DIEN (Zhou et al. 2019): interests, how they evolve, and where they are heading."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.models.rankers.encoded import HISTORY, RESERVED
from pipelines.models.rankers.inputs import vectors
from pipelines.models.rankers.layers import perceptron, probability
from pipelines.models.rankers.samples import Statistics
from pipelines.models_config import DienConfig

_MASKED_SCORE = -1e9


def network(
    inputs: dict[str, Any], statistics: Statistics, config: DienConfig, seed: int
) -> keras.Model:
    """Return the untrained network.

    A GRU over the history, oldest first, gives the interest at each step; the auxiliary loss makes
    it tell the item that came next from one that did not. A GRU with an attentional update gate
    follows those interests that have to do with the candidate.
    """
    known = vectors(inputs, statistics, config, seed)
    history, mask = ops.flip(known.history, axis=1), ops.flip(known.mask, axis=1)
    is_there = ops.cast(mask, "bool")
    states = keras.layers.GRU(config.dimension, return_sequences=True, name="interest")(
        history, mask=is_there
    )
    if config.auxiliary_weight:
        states = AuxiliaryLoss(config.auxiliary_weight, seed, name="auxiliary_loss")(
            states, history, mask, ops.flip(inputs[HISTORY], axis=1)
        )
    attention = CandidateAttention(name="attention")(known.item, states, mask)
    evolved = keras.layers.RNN(AttentionalGruCell(config.dimension), name="evolution")(
        ops.concatenate([states, ops.expand_dims(attention, -1)], axis=-1), mask=is_there
    )
    everything = ops.concatenate([evolved, *known.of_user_alone, *known.of_item], axis=1)
    hidden = perceptron(everything, config.hidden, config.dropout, seed)
    return keras.Model(inputs, probability(keras.layers.Dense(1)(hidden)))


@keras.saving.register_keras_serializable("ferry")
class AuxiliaryLoss(keras.layers.Layer):  # type: ignore[misc]
    """Adds, in training, how badly each interest tells the next item from a negative one.

    A negative is an item of another history of the batch, and so as popular as what people like;
    where it is one of the user's own items it does not count. The label of the sample has no part
    in this.
    """

    def __init__(self, weight: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = weight
        self.seed = seed
        # Padding's states are there, and are left out by `present`.
        self.supports_masking = True
        self._generator = keras.random.SeedGenerator(seed)

    def call(
        self, states: Any, history: Any, present: Any, ids: Any, training: bool = False
    ) -> Any:
        """Return `states` [n, k, d] as they are.

        `history` [n, k, d] are the items' vectors, `present` [n, k] is 1 where there is one, and
        `ids` [n, k] are their numbers, all oldest first.
        """
        if training:
            self.add_loss(self.weight * self._loss(states, history, present, ids))
        return states

    def _loss(self, states: Any, history: Any, present: Any, ids: Any) -> Any:
        rows, length, size = ops.shape(history)
        flat_vectors, flat_ids = ops.reshape(history, (-1, size)), ops.reshape(ids, (-1,))
        drawn = keras.random.randint((rows, length), 0, rows * length, seed=self._generator)
        negative, negative_ids = ops.take(flat_vectors, drawn, axis=0), ops.take(flat_ids, drawn)
        own = ops.any(ops.equal(ops.expand_dims(negative_ids, 2), ops.expand_dims(ids, 1)), axis=2)
        # Neither padding nor the slot of unknown items is an item.
        is_item = ops.logical_and(negative_ids >= RESERVED, ops.logical_not(own))
        counted = present[:, :-1] * present[:, 1:]
        losses = [
            (-1.0, ops.sum(states[:, :-1] * history[:, 1:], axis=-1), counted),
            (
                1.0,
                ops.sum(states[:, :-1] * negative[:, 1:], axis=-1),
                counted * ops.cast(is_item, "float32")[:, 1:],
            ),
        ]
        total = sum(ops.sum(ops.softplus(sign * logit) * weight) for sign, logit, weight in losses)
        return total / ops.maximum(sum(ops.sum(weight) for _, _, weight in losses), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "weight": self.weight, "seed": self.seed}


@keras.saving.register_keras_serializable("ferry")
class CandidateAttention(keras.layers.Layer):  # type: ignore[misc]
    """A softmax over the steps of a history, of a bilinear form with the candidate."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, candidate_shape: Any, states_shape: Any, present_shape: Any) -> None:
        """Make the form's matrix."""
        self._form = self.add_weight(shape=(states_shape[-1], candidate_shape[-1]), name="form")
        self.built = True

    def call(self, candidate: Any, states: Any, present: Any) -> Any:
        """Return weights [n, k] of states [n, k, d] for a candidate [n, d].

        They add up to 1 where `present` [n, k] is 1 and are 0 elsewhere.
        """
        scores = ops.einsum("nkd,de,ne->nk", states, self._form, candidate)
        return ops.softmax(ops.where(present > 0, scores, _MASKED_SCORE), axis=-1) * present


@keras.saving.register_keras_serializable("ferry")
class AttentionalGruCell(keras.layers.Layer):  # type: ignore[misc]
    """A GRU cell whose update gate is scaled by the step's attention (AUGRU).

    A step's input is [n, d + 1]: the interest, and its attention last.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units
        self._gates = keras.layers.Dense(2 * units, activation="sigmoid")
        self._candidate = keras.layers.Dense(units, activation="tanh")

    def build(self, step_shape: Any) -> None:
        """Make the weights."""
        width = (None, step_shape[-1] - 1 + self.units)
        self._gates.build(width)
        self._candidate.build(width)
        self.built = True

    def call(self, step: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        """Return the new state [n, units], as output and as state."""
        interest, attention = step[:, :-1], step[:, -1:]
        (state,) = states
        gates = self._gates(ops.concatenate([interest, state], axis=1))
        update, reset = gates[:, : self.units] * attention, gates[:, self.units :]
        new = self._candidate(ops.concatenate([interest, reset * state], axis=1))
        state = (1.0 - update) * state + update * new
        return state, [state]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "units": self.units}
