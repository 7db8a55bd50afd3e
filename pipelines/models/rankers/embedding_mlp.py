"""Embedding+MLP (Covington et al. 2016; the deep part of Cheng et al. 2016)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.models.rankers.inputs import vectors
from pipelines.models.rankers.layers import perceptron, probability
from pipelines.models.rankers.samples import Statistics
from pipelines.models_config import EmbeddingMlpConfig


def network(
    inputs: dict[str, Any], statistics: Statistics, config: EmbeddingMlpConfig, seed: int
) -> keras.Model:
    """Return the untrained network: all vectors and numbers, side by side, through a perceptron."""
    known = vectors(inputs, statistics, config, seed)
    everything = ops.concatenate([*known.of_user, *known.of_item], axis=1)
    hidden = perceptron(everything, config.hidden, config.dropout, seed)
    return keras.Model(inputs, probability(keras.layers.Dense(1)(hidden)))
