"""What goes into a network: encoded inputs, their vectors, and the way there from raw ones.

The lookups are inside the SavedModel, so that whoever asks sends what a person would write: ids
and genres as text, numbers as they are, '' and NaN for what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from keras import ops

from pipelines.features.schema import (
    FEATURES,
    ITEM_FEATURES,
    ITEM_GENRES,
    ITEM_ID,
    ITEM_NUMBERS,
    NUMBERS,
    USER_FEATURES,
    USER_GENRES,
    USER_HISTORY,
    USER_ID,
    USER_NUMBERS,
    USER_RECENT_ITEMS,
)
from pipelines.models.rankers.encoded import (
    HISTORY,
    ITEM,
    MISSING,
    NUMBERS_IN,
    OF_ITEM,
    OF_USER,
    RESERVED,
    USER,
    Shape,
)
from pipelines.models.rankers.layers import IdDropout, Standardisation, masked_mean
from pipelines.models.rankers.samples import Statistics, is_count
from pipelines.models_config import RankerConfig
from pipelines.online.ranking_inputs import TEXT_INPUTS

#: A number that is the same in all samples has no variance to divide by.
_MIN_VARIANCE = 1e-6


def user_inputs(shape: Shape) -> tuple[str, ...]:
    """Return the raw inputs that describe the user."""
    return (USER_ID, *USER_FEATURES, *([USER_HISTORY] if shape.has_list else []))


def item_inputs() -> tuple[str, ...]:
    """Return the raw inputs that describe the candidate."""
    return (ITEM_ID, *ITEM_FEATURES)


def raw_names(shape: Shape) -> tuple[str, ...]:
    """Return all raw inputs."""
    return (USER_ID, ITEM_ID, *FEATURES, *([USER_HISTORY] if shape.has_list else []))


def is_text(name: str) -> bool:
    """Tell whether a raw input is text; the others are float32."""
    return name == USER_HISTORY or name in TEXT_INPUTS


def encoded_inputs(shape: Shape) -> dict[str, keras.KerasTensor]:
    """Return one Keras input for each encoded one, as :class:`EncodedSamples` gives them."""
    inputs = {
        name: keras.Input(() if size == 1 else (size,), dtype="int32", name=name)
        for name, size in shape.ids.items()
    }
    return {**inputs, NUMBERS_IN: keras.Input((len(NUMBERS),), dtype="float32", name=NUMBERS_IN)}


def _lookup(vocabulary: pa.Array, name: str) -> keras.layers.StringLookup:
    words = pc.cast(vocabulary, pa.string()).to_pylist()
    # Keras wants at least one word; this one no id can be, since '' stands for "missing" before.
    return keras.layers.StringLookup(
        vocabulary=words or ["\0"],
        mask_token="",
        num_oov_indices=1,
        output_mode="int",
        name=f"{name}_lookup",
    )


def genre_lookup(statistics: Statistics) -> keras.layers.StringLookup:
    """Return the layer from genres as text to their numbers."""
    return _lookup(statistics.genres, "genre")


class Encoder:
    """The same encoding as in :mod:`pipelines.models.rankers.encoded`, as layers of a graph."""

    def __init__(self, statistics: Statistics, shape: Shape) -> None:
        self.shape = shape
        self._users = _lookup(statistics.users, "user")
        self._items = _lookup(statistics.items, "item")
        self._genres = genre_lookup(statistics)

    @property
    def lookups(self) -> list[keras.layers.StringLookup]:
        """The layers that hold the vocabularies."""
        return [self._users, self._items, self._genres]

    def user(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Encode the user's raw inputs, but for the numbers."""
        if self.shape.has_list:
            # The client's history may be longer or shorter than the one that was trained on.
            cut = self._items(raw[USER_HISTORY])[:, : self.shape.history]
            missing = self.shape.history - ops.shape(cut)[1]
            history = ops.pad(cut, [[0, 0], [0, missing]], constant_values=MISSING)
            history = ops.reshape(history, (-1, self.shape.history))
        else:
            history = ops.stack([self._items(raw[name]) for name in USER_RECENT_ITEMS], axis=1)
        genres = ops.stack([self._genres(raw[name]) for name in USER_GENRES], axis=1)
        encoded = {USER: self._users(raw[USER_ID]), OF_USER: genres, HISTORY: history}
        return {name: ops.cast(ids, "int32") for name, ids in encoded.items()}

    def item(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Encode the candidate's raw inputs, but for the numbers."""
        genres = ops.stack([self._genres(raw[name]) for name in ITEM_GENRES], axis=1)
        encoded = {ITEM: self._items(raw[ITEM_ID]), OF_ITEM: genres}
        return {name: ops.cast(ids, "int32") for name, ids in encoded.items()}


def raw_numbers(raw: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Return the numbers [n, len(names)] of raw inputs."""
    return ops.stack([raw[name] for name in names], axis=1)


@dataclass(frozen=True)
class Vectors:
    """What networks are made of.

    `user` and `item` are [n, d], as are `user_genres` and `item_genres`, the means of the genres'
    vectors. `history` [n, k, d] are the latest items' vectors, newest first, in the space of
    `item`; `mask` [n, k] is 1 where there is one and 0 for padding. `user_numbers` [n, 10] and
    `item_numbers` [n, 8] are normalised, each followed by 1 where the number is missing.
    """

    user: Any
    item: Any
    history: Any
    mask: Any
    user_genres: Any
    item_genres: Any
    user_numbers: Any
    item_numbers: Any

    @property
    def recent(self) -> Any:
        """The mean [n, d] of the latest items' vectors."""
        return masked_mean(self.history, self.mask)

    @property
    def of_user(self) -> list[Any]:
        """All that is known of the user, with the mean of the latest items for the history."""
        return [self.user, self.recent, self.user_genres, self.user_numbers]

    @property
    def of_user_alone(self) -> list[Any]:
        """All that is known of the user but for the history."""
        return [self.user, self.user_genres, self.user_numbers]

    @property
    def of_item(self) -> list[Any]:
        """All that is known of the candidate."""
        return [self.item, self.item_genres, self.item_numbers]


def vectors(
    inputs: dict[str, Any], statistics: Statistics, config: RankerConfig, seed: int
) -> Vectors:
    """Return the vectors of encoded inputs, from embeddings of ``config.dimension``.

    Latest items share the candidate's embedding; both sides share that of genres.
    """

    def embedding(vocabulary: pa.Array, name: str) -> keras.layers.Embedding:
        size = len(vocabulary) + RESERVED
        return keras.layers.Embedding(size, config.dimension, name=f"{name}_embedding")

    users, items = embedding(statistics.users, USER), embedding(statistics.items, ITEM)
    genres = embedding(statistics.genres, "genre")

    def dropped(name: str, number: int) -> Any:
        return IdDropout(config.id_dropout, seed + number, name=f"{name}_dropout")(inputs[name])

    def mask(name: str) -> Any:
        # Made of the ids themselves and given on by hand: Keras drops its own masks silently at
        # the first layer that does not know them, and padding would then be averaged in.
        return ops.cast(ops.not_equal(inputs[name], MISSING), "float32")

    user_numbers, item_numbers = numbers(inputs[NUMBERS_IN], statistics)
    return Vectors(
        user=users(dropped(USER, 0)),
        item=items(dropped(ITEM, 1)),
        history=items(inputs[HISTORY]),
        mask=mask(HISTORY),
        user_genres=masked_mean(genres(inputs[OF_USER]), mask(OF_USER)),
        item_genres=masked_mean(genres(inputs[OF_ITEM]), mask(OF_ITEM)),
        user_numbers=user_numbers,
        item_numbers=item_numbers,
    )


def numbers(raw: Any, statistics: Statistics) -> tuple[Any, Any]:
    """Return the user's [n, 10] and the candidate's [n, 8] of raw numbers [n, 9].

    Normalised, with counts on a logarithmic scale, and after them 1 for each that is missing.
    """
    places = {name: i for i, name in enumerate(NUMBERS)}

    def side(names: tuple[str, ...], name: str) -> Any:
        at = [places[n] for n in names]
        columns = [raw[:, i] for i in at]
        missing = ops.isnan(ops.stack(columns, axis=1))
        scaled = [
            # Counts are never negative; relu keeps a wrong one from becoming NaN.
            ops.log1p(ops.relu(column)) if is_count(n) else column
            for n, column in zip(names, columns, strict=True)
        ]
        normalise = Standardisation(
            statistics.mean[at], np.maximum(statistics.variance[at], _MIN_VARIANCE), name=name
        )
        # NaN would survive a multiplication by 0: the value itself is replaced, by the mean.
        values = ops.where(missing, 0.0, normalise(ops.stack(scaled, axis=1)))
        return ops.concatenate([values, ops.cast(missing, "float32")], axis=1)

    return side(USER_NUMBERS, "user_numbers"), side(ITEM_NUMBERS, "item_numbers")
