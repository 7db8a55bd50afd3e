"""Several interests of a user, read from the history ahead, and a light model that uses them.

The split of work is MIMN's (Pi et al. 2019): what is long, the history, is read offline; what is
served is a shallow network over vectors. M learned queries attend to the items of the history and
to their places in it, each for one interest (ComiRec-SA, Cen et al. 2020). Both halves are trained
together, and cut where they meet: at the interests and the candidate's vector.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from pipelines.models.rankers.encoded import (
    HISTORY,
    ITEM,
    MISSING,
    NUMBERS_IN,
    OF_ITEM,
    OF_USER,
    RESERVED,
    UNKNOWN,
)
from pipelines.models.rankers.inputs import numbers
from pipelines.models.rankers.layers import IdDropout, masked_mean, perceptron, probability
from pipelines.models.rankers.samples import Statistics
from pipelines.models_config import InterestRankerConfig
from pipelines.online.ranking_inputs import INTERESTS, ITEM_VECTOR

ENCODER, LIGHT = "interest_encoder", "light_model"
_MASKED_SCORE = -1e9


def network(
    inputs: dict[str, Any], statistics: Statistics, config: InterestRankerConfig, seed: int
) -> keras.Model:
    """Return the untrained, uncut network.

    Its layer :data:`ENCODER` is a model from the encoded history [n, k] to interests [n, M * d],
    and :data:`LIGHT` one from interests, item vector, genres and numbers to the probability [n].
    The candidate's vector is its row of the layer ``item_embedding``. The user's id has no part in
    it: what is known of a user is their history.
    """
    items = keras.layers.Embedding(
        len(statistics.items) + RESERVED, config.dimension, name="item_embedding"
    )
    encoder = _encoder(inputs[HISTORY], items, config)
    item = IdDropout(config.id_dropout, seed, name="item_dropout")(inputs[ITEM])
    light = _light_model(inputs, statistics, config, seed)
    given = {
        INTERESTS: encoder(inputs[HISTORY]),
        ITEM_VECTOR: items(item),
        **{name: inputs[name] for name in (OF_USER, OF_ITEM, NUMBERS_IN)},
    }
    return keras.Model(inputs, light(given))


def _encoder(history: Any, items: keras.layers.Embedding, config: InterestRankerConfig) -> Any:
    present = ops.cast(ops.not_equal(history, MISSING), "float32")
    interests = Interests(config.interests, name="interests")(items(history), present)
    return keras.Model(history, interests, name=ENCODER)


def _light_model(
    inputs: dict[str, Any], statistics: Statistics, config: InterestRankerConfig, seed: int
) -> keras.Model:
    size = config.dimension
    given = {
        INTERESTS: keras.Input((config.interests * size,), name=INTERESTS),
        ITEM_VECTOR: keras.Input((size,), name=ITEM_VECTOR),
        **{
            name: keras.Input(inputs[name].shape[1:], dtype=inputs[name].dtype, name=name)
            for name in (OF_USER, OF_ITEM, NUMBERS_IN)
        },
    }
    item = given[ITEM_VECTOR]
    interests = ops.reshape(given[INTERESTS], (-1, config.interests, size))
    # The interest that has most to do with the candidate counts most.
    scores = ops.sum(interests * ops.expand_dims(keras.layers.Dense(size)(item), 1), axis=-1)
    weights = ops.softmax(scores, axis=-1)
    interest = ops.sum(ops.expand_dims(weights, -1) * interests, axis=1)

    genres = keras.layers.Embedding(len(statistics.genres) + RESERVED, size, name="genre_embedding")

    def mean_genre(name: str) -> Any:
        present = ops.cast(ops.not_equal(given[name], MISSING), "float32")
        return masked_mean(genres(given[name]), present)

    everything = ops.concatenate(
        [
            interest,
            item,
            interest * item,
            mean_genre(OF_USER),
            mean_genre(OF_ITEM),
            *numbers(given[NUMBERS_IN], statistics),
        ],
        axis=1,
    )
    hidden = perceptron(everything, config.hidden, config.dropout, seed)
    return keras.Model(given, probability(keras.layers.Dense(1)(hidden)), name=LIGHT)


@keras.saving.register_keras_serializable("ferry")
class Interests(keras.layers.Layer):  # type: ignore[misc]
    """Learned queries that attend to a sequence: one vector for each."""

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count

    def build(self, sequence_shape: Any, present_shape: Any) -> None:
        """Make keys, places and queries."""
        length, size = sequence_shape[1:]
        self._keys = keras.layers.Dense(size, activation="tanh")
        self._keys.build((None, length, size))
        # Where in the history an item stands counts through one number for each interest: a whole
        # vector for each place learns single users' histories by heart.
        self._places = self.add_weight(
            shape=(self.count, length), initializer="zeros", name="places"
        )
        self._queries = self.add_weight(shape=(self.count, size), name="queries")
        self.built = True

    def call(self, sequence: Any, present: Any) -> Any:
        """Return [n, count * d] for vectors [n, k, d] where `present` [n, k] is 1; 0 if none is."""
        scores = ops.einsum("nkd,md->nmk", self._keys(sequence), self._queries) + self._places
        known = ops.expand_dims(present, 1)
        weights = ops.softmax(ops.where(known > 0, scores, _MASKED_SCORE), axis=-1) * known
        interests = ops.einsum("nmk,nkd->nmd", weights, sequence)
        return ops.reshape(interests, (-1, self.count * sequence.shape[-1]))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "count": self.count}


def item_vectors(model: keras.Model) -> np.ndarray:
    """Return the vectors [items + 2, d] float32 of all items; row 1 is that of an unknown one."""
    vectors: np.ndarray = np.asarray(model.get_layer("item_embedding").get_weights()[0])
    return vectors


def unknown_item(model: keras.Model) -> np.ndarray:
    """Return the vector [d] of an item that is not in the vocabulary."""
    vector: np.ndarray = item_vectors(model)[UNKNOWN]
    return vector
