"""Wide&Deep (Cheng et al. 2016): memorised crosses of features beside a perceptron."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.models.rankers.encoded import HISTORY, ITEM, MISSING, OF_ITEM, OF_USER
from pipelines.models.rankers.inputs import vectors
from pipelines.models.rankers.layers import masked_mean, perceptron, probability
from pipelines.models.rankers.samples import Statistics
from pipelines.models_config import WideDeepConfig

#: Latest items that are crossed with the candidate.
_CROSSED_ITEMS = 5
#: An odd factor that spreads pairs of small numbers over the buckets (Knuth's multiplicative hash).
_FACTOR = 2_654_435_761


def network(
    inputs: dict[str, Any], statistics: Statistics, config: WideDeepConfig, seed: int
) -> keras.Model:
    """Return the untrained network.

    Crossed are the candidate with each of the latest items, and its genres with the user's
    favourite ones; a cross's weight is looked up by the hash of the pair.
    """
    known = vectors(inputs, statistics, config, seed)
    everything = ops.concatenate([*known.of_user, *known.of_item], axis=1)
    deep = perceptron(everything, config.hidden, config.dropout, seed)
    recent = inputs[HISTORY][:, :_CROSSED_ITEMS]
    wide = [
        _crossed(left, right, config.crossed_buckets, name)
        for name, left, right in (
            ("items", ops.expand_dims(inputs[ITEM], 1), recent),
            ("genres", inputs[OF_ITEM], inputs[OF_USER]),
        )
    ]
    logit = keras.layers.Dense(1)(ops.concatenate([deep, *wide], axis=1))
    return keras.Model(inputs, probability(logit))


def _crossed(left: Any, right: Any, buckets: int, name: str) -> Any:
    """Return [n, 1]: the mean weight of all pairs of ids of left [n, k] and right [n, m].

    Pairs with a missing one don't count.
    """
    wide_left = ops.cast(ops.expand_dims(left, 2), "int64")
    wide_right = ops.cast(ops.expand_dims(right, 1), "int64")
    pairs = ops.mod((wide_left * _FACTOR) ^ wide_right, buckets)
    known = ops.logical_and(
        ops.not_equal(ops.expand_dims(left, 2), MISSING),
        ops.not_equal(ops.expand_dims(right, 1), MISSING),
    )
    size = left.shape[1] * right.shape[1]
    weights = keras.layers.Embedding(
        buckets, 1, embeddings_initializer="zeros", name=f"crossed_{name}"
    )(ops.reshape(pairs, (-1, size)))
    return masked_mean(weights, ops.reshape(ops.cast(known, "float32"), (-1, size)))
