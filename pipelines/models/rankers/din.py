"""DIN (Zhou et al. 2018): the part of a history that matters for the candidate."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.models.rankers.inputs import vectors
from pipelines.models.rankers.layers import ActivationUnit, perceptron, probability
from pipelines.models.rankers.samples import Statistics
from pipelines.models_config import DinConfig


def network(
    inputs: dict[str, Any], statistics: Statistics, config: DinConfig, seed: int
) -> keras.Model:
    """Return the untrained network: the history is summed up by its weight for the candidate.

    The sum is divided by the number of items, whatever their weights: long histories would drown
    all else. The plain mean of the history is left out, for the same reason as in the paper: it is
    what attention replaces.
    """
    known = vectors(inputs, statistics, config, seed)
    weights = ActivationUnit(config.attention, name="activation_unit")(
        known.item, known.history, known.mask
    )
    items = ops.maximum(ops.sum(known.mask, axis=1, keepdims=True), 1.0)
    interest = ops.sum(ops.expand_dims(weights, -1) * known.history, axis=1) / items
    everything = ops.concatenate([interest, *known.of_user_alone, *known.of_item], axis=1)
    hidden = perceptron(everything, config.hidden, config.dropout, seed)
    return keras.Model(inputs, probability(keras.layers.Dense(1)(hidden)))
