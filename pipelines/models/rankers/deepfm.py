"""DeepFM (Guo et al. 2017): a factorisation machine and a perceptron over the same vectors."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras_rs.layers import DotInteraction

from pipelines.models.rankers.inputs import vectors
from pipelines.models.rankers.layers import perceptron, probability
from pipelines.models.rankers.samples import Statistics
from pipelines.models_config import DeepFmConfig


def network(
    inputs: dict[str, Any], statistics: Statistics, config: DeepFmConfig, seed: int
) -> keras.Model:
    """Return the untrained network.

    The fields of the factorisation machine are user, item, latest items, both sides' genres, and
    both sides' numbers, which a dense layer brings to the vectors' size. Its second order is the
    sum of the dot products of all pairs of fields, its first order a weight for each component.
    """
    known = vectors(inputs, statistics, config, seed)
    fields = [
        known.user,
        known.item,
        known.recent,
        known.user_genres,
        known.item_genres,
        *(
            keras.layers.Dense(config.dimension, name=name)(numbers)
            for name, numbers in (
                ("user_numbers_field", known.user_numbers),
                ("item_numbers_field", known.item_numbers),
            )
        ),
    ]
    everything = ops.concatenate([*known.of_user, *known.of_item], axis=1)
    first = keras.layers.Dense(1)(everything)
    second = ops.sum(DotInteraction()(fields), axis=1, keepdims=True)
    deep = perceptron(everything, config.hidden, config.dropout, seed)
    logit = first + second + keras.layers.Dense(1)(deep)
    return keras.Model(inputs, probability(logit))
