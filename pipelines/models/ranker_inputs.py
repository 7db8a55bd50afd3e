"""The part that the Keras rankers share: from raw serving inputs to vectors.

It is inside the SavedModel, so that whoever asks sends what a person would write: ids and genres
as text, numbers as they are, '' and NaN for what is missing.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from pipelines.features.schema import (
    ITEM_GENRES,
    ITEM_ID,
    NUMBERS,
    USER_GENRES,
    USER_ID,
    USER_RECENT_ITEMS,
)
from pipelines.models.ranker_data import Statistics, is_count
from pipelines.online.ranking_inputs import INPUTS, TEXT_INPUTS

#: Numbers of the lookups: 0 is a missing word, 1 one that is not in the vocabulary.
_MISSING, _UNKNOWN = 0, 1
#: A number that is the same in all samples has no variance to divide by.
_MIN_VARIANCE = 1e-6


@keras.saving.register_keras_serializable("ferry")
class IdDropout(keras.layers.Layer):  # type: ignore[misc]
    """Replaces ids [n] by the unknown one, at random and in training only.

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
        drawn = keras.random.uniform(keras.ops.shape(ids), seed=self._generator)
        return keras.ops.where(drawn < self.rate, keras.ops.full_like(ids, _UNKNOWN), ids)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def raw_inputs() -> dict[str, keras.KerasTensor]:
    """Return one input of shape [n] for each raw feature: text, or float32."""
    return {
        name: keras.Input((), dtype="string" if name in TEXT_INPUTS else "float32", name=name)
        for name in INPUTS
    }


def _lookup(vocabulary: list[str], name: str) -> keras.layers.StringLookup:
    # Keras wants at least one word; this one no id can be, since '' stands for "missing" before.
    return keras.layers.StringLookup(
        vocabulary=vocabulary or ["\0"], mask_token="", num_oov_indices=1, name=f"{name}_lookup"
    )


def _mean_of_known(embedding: keras.layers.Embedding, ids: Any) -> Any:
    """Return the mean [n, dimension] of the vectors of ids [n, k] that are not missing."""
    known = keras.ops.cast(keras.ops.not_equal(ids, _MISSING), "float32")
    total = keras.ops.sum(embedding(ids) * keras.ops.expand_dims(known, -1), axis=1)
    return total / keras.ops.maximum(keras.ops.sum(known, axis=1, keepdims=True), 1.0)


def numbers(inputs: dict[str, Any], statistics: Statistics) -> Any:
    """Return [n, 2 * len(NUMBERS)]: normalised numbers, and 1 for each that is missing."""
    columns = [
        # Counts are never negative; relu keeps a wrong one from becoming NaN.
        keras.ops.log1p(keras.ops.relu(inputs[name])) if is_count(name) else inputs[name]
        for name in NUMBERS
    ]
    raw = keras.ops.stack([inputs[name] for name in NUMBERS], axis=1)
    missing = keras.ops.isnan(raw)
    normalise = keras.layers.Normalization(
        mean=statistics.mean.astype(np.float32),
        variance=np.maximum(statistics.variance, _MIN_VARIANCE).astype(np.float32),
        name="numbers",
    )
    # NaN would survive a multiplication by 0: the value itself is replaced, by the mean.
    values = keras.ops.where(missing, 0.0, normalise(keras.ops.stack(columns, axis=1)))
    return keras.ops.concatenate([values, keras.ops.cast(missing, "float32")], axis=1)


def embedded(
    inputs: dict[str, Any],
    statistics: Statistics,
    dimension: int,
    genre_dimension: int,
    id_dropout: float,
    seed: int,
) -> dict[str, Any]:
    """Return the vectors: user, item and recent [n, dimension], genres [n, genre_dimension].

    Recently liked items share the item's embedding; both sides share that of genres.
    """
    users, items, genres = (
        _lookup(vocabulary, name)
        for vocabulary, name in (
            (statistics.users, "user"),
            (statistics.items, "item"),
            (statistics.genres, "genre"),
        )
    )

    def embedding(lookup: keras.layers.StringLookup, name: str, size: int) -> Any:
        return keras.layers.Embedding(lookup.vocabulary_size(), size, name=f"{name}_embedding")

    item_embedding = embedding(items, "item", dimension)
    genre_embedding = embedding(genres, "genre", genre_dimension)

    def stacked(lookup: keras.layers.StringLookup, names: tuple[str, ...]) -> Any:
        return keras.ops.stack([lookup(inputs[name]) for name in names], axis=1)

    user = IdDropout(id_dropout, seed, name="user_dropout")(users(inputs[USER_ID]))
    item = IdDropout(id_dropout, seed + 1, name="item_dropout")(items(inputs[ITEM_ID]))
    return {
        "user": embedding(users, "user", dimension)(user),
        "item": item_embedding(item),
        "recent": _mean_of_known(item_embedding, stacked(items, USER_RECENT_ITEMS)),
        "user_genres": _mean_of_known(genre_embedding, stacked(genres, USER_GENRES)),
        "item_genres": _mean_of_known(genre_embedding, stacked(genres, ITEM_GENRES)),
    }
