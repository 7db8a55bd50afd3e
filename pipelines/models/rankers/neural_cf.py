"""Neural collaborative filtering (NeuMF, He et al. 2017): user and item alone, without features.

A generalised matrix factorisation and a perceptron, each with embeddings of its own, are joined
before the last layer.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.models.rankers.encoded import ITEM, RESERVED, USER
from pipelines.models.rankers.layers import IdDropout, perceptron, probability
from pipelines.models.rankers.samples import Statistics
from pipelines.models_config import NeuralCfConfig


def network(
    inputs: dict[str, Any], statistics: Statistics, config: NeuralCfConfig, seed: int
) -> keras.Model:
    """Return the untrained network; it takes all encoded inputs and reads user and item."""
    sizes = {USER: len(statistics.users), ITEM: len(statistics.items)}
    ids = {
        name: IdDropout(config.id_dropout, seed + number, name=f"{name}_dropout")(inputs[name])
        for number, name in enumerate(sizes)
    }

    def embedded(part: str) -> list[Any]:
        return [
            keras.layers.Embedding(size + RESERVED, config.dimension, name=f"{name}_{part}")(
                ids[name]
            )
            for name, size in sizes.items()
        ]

    factors = ops.multiply(*embedded("factors"))
    hidden = perceptron(
        ops.concatenate(embedded("embedding"), axis=1), config.hidden, config.dropout, seed
    )
    joined = ops.concatenate([factors, hidden], axis=1)
    return keras.Model(inputs, probability(keras.layers.Dense(1)(joined)))
