"""Export for TensorFlow Serving: raw inputs in front of a network, signatures, warm-up requests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from pipelines.features.schema import ITEM_ID, NUMBERS, USER_HISTORY, USER_ID
from pipelines.models.base import ScoredRequest
from pipelines.models.rankers.encoded import NUMBERS_IN, Shape
from pipelines.models.rankers.inputs import (
    Encoder,
    is_text,
    item_inputs,
    raw_names,
    raw_numbers,
    user_inputs,
)
from pipelines.models.rankers.training import Fitted
from pipelines.models.rankers.two_tower import ITEM_TOWER, TOWERS, USER_TOWER
from pipelines.online.ranking_inputs import is_user_input, serving_inputs

#: One row a user and candidate.
SIGNATURE = "serving_default"
#: One row of the user's inputs and any number of candidates.
RANK = "rank"
SCORE = "score"
VECTOR = "vector"
_WARMUP_ROWS = 4
_UNSEEN = "(unseen)"


class Served(keras.Model, ABC):  # type: ignore[misc]
    """What a model server serves: a network behind lookups, from raw inputs to scores.

    * :data:`SIGNATURE`: all raw inputs, [n] or [n, size] each, to :data:`SCORE` [n]
    * :data:`RANK`: the user's inputs with one row and the candidates' with n, to :data:`SCORE` [n]
    """

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The raw inputs."""

    @abstractmethod
    def shape_of(self, name: str) -> tuple[int | None, ...]:
        """Return the shape of a raw input of one row."""

    @abstractmethod
    def rank(self, raw: dict[str, Any]) -> Any:
        """Return the probability [n] of n candidates for one user, whose inputs have one row."""

    def further_signatures(self) -> list[_Signature]:
        """Return the signatures that it has besides the two."""
        return []

    def lookups(self) -> Sequence[keras.layers.StringLookup]:
        """Return the lookups whose vocabularies are saved with it."""
        return []

    def write(self, folder: Path) -> None:
        """Write a SavedModel with all signatures to `folder`."""
        # Called once, so that everything is built.
        self({name: tf.zeros([1, *self._filled(name)], _dtype(name)) for name in self.names})
        signatures = {}
        for name, inputs, answer in [
            (SIGNATURE, self.names, lambda raw: {SCORE: self(raw)}),
            (RANK, self.names, lambda raw: {SCORE: self.rank(raw)}),
            *self.further_signatures(),
        ]:
            specs = {i: tf.TensorSpec([None, *self.shape_of(i)], _dtype(i), name=i) for i in inputs}
            graph = tf.function(answer, input_signature=[specs], autograph=False)
            signatures[name] = graph.get_concrete_function()
        # Nothing but what the signatures read: Keras' own export walks through all layers, and
        # traces every function twice.
        saved = tf.Module()
        saved.weights = [variable.value for variable in self.variables]
        saved.tables = [lookup.lookup_table for lookup in self.lookups()]
        tf.saved_model.save(saved, str(folder), signatures=signatures)

    def _filled(self, name: str) -> list[int]:
        return [size or 1 for size in self.shape_of(name)]


_Signature = tuple[str, Sequence[str], Callable[[dict[str, Any]], dict[str, Any]]]


def _dtype(name: str) -> tf.DType:
    return tf.string if is_text(name) else tf.float32


class ServedRanker(Served):
    """A ranker over raw features; with two towers, also ``user_tower`` and ``item_tower``.

    Those take one side's inputs [n] to :data:`VECTOR` [n, vector_size + 2].
    """

    def __init__(self, fitted: Fitted, shape: Shape) -> None:
        super().__init__()
        self.network = fitted.network
        self.inputs_shape = shape
        self.encoder = Encoder(fitted.statistics, shape)

    @property
    def names(self) -> tuple[str, ...]:
        """The raw inputs."""
        return raw_names(self.inputs_shape)

    def shape_of(self, name: str) -> tuple[int | None, ...]:
        """Return the shape of a raw input of one row: a list of any length, or a value."""
        return (None,) if name == USER_HISTORY else ()

    def call(self, raw: dict[str, Any]) -> Any:
        """Return the probability [n] of raw inputs of n rows."""
        encoded = {**self.encoder.user(raw), **self.encoder.item(raw)}
        return self.network({**encoded, NUMBERS_IN: raw_numbers(raw, NUMBERS)}, training=False)

    def rank(self, raw: dict[str, Any]) -> Any:
        """Return the probability [n] of n candidates for one user, whose inputs have one row.

        The user's texts are looked up once.
        """
        count = ops.shape(raw[ITEM_ID])[0]
        user = {
            name: ops.repeat(ids, count, axis=0) for name, ids in self.encoder.user(raw).items()
        }
        numbers = {
            name: ops.repeat(raw[name], count, axis=0) if is_user_input(name) else raw[name]
            for name in NUMBERS
        }
        encoded = {**user, **self.encoder.item(raw), NUMBERS_IN: raw_numbers(numbers, NUMBERS)}
        return self.network(encoded, training=False)

    def lookups(self) -> Sequence[keras.layers.StringLookup]:
        """Return those of users, items and genres."""
        return self.encoder.lookups

    def further_signatures(self) -> list[_Signature]:
        """Return those of the towers."""
        if all(layer.name != USER_TOWER for layer in self.network.layers):
            return []
        return [
            (
                USER_TOWER,
                user_inputs(self.inputs_shape),
                lambda raw: {VECTOR: self._vector(USER_TOWER, self.encoder.user(raw), raw)},
            ),
            (
                ITEM_TOWER,
                item_inputs(),
                lambda raw: {VECTOR: self._vector(ITEM_TOWER, self.encoder.item(raw), raw)},
            ),
        ]

    def _vector(self, tower: str, encoded: dict[str, Any], raw: dict[str, Any]) -> Any:
        # The other side's numbers, which the tower does not look at.
        unknown = tf.fill(tf.shape(next(iter(raw.values())))[:1], np.float32(np.nan))
        numbers = raw_numbers({name: raw.get(name, unknown) for name in NUMBERS}, NUMBERS)
        inputs = {**encoded, NUMBERS_IN: numbers}
        layer = self.network.get_layer(tower)
        return layer({name: inputs[name] for name in TOWERS[tower]}, training=False)


def add_warmup(
    folder: Path, model: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> None:
    """Add requests for the server's `model` to the SavedModel in `folder`: the first of `rows`.

    Without them the first live request would pay for the graph's start.
    """
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows[:_WARMUP_ROWS]:
            inputs = tensors([row], names)
            for signature in (SIGNATURE, RANK):
                request = predict_pb2.PredictRequest()
                request.model_spec.name = model
                request.model_spec.signature_name = signature
                for name, tensor in inputs.items():
                    request.inputs[name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
                log = prediction_log_pb2.PredictionLog()
                log.predict_log.request.CopyFrom(request)
                writer.write(log.SerializeToString())


def tensors(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, tf.Tensor]:
    """Return rows of raw features as the inputs `names`, of len(rows) rows each."""
    columns = serving_inputs([{name: row.get(name) for name in names} for row in rows])
    return {name: tf.constant(column, _dtype(name)) for name, column in columns.items()}


def golden_requests(
    model: ServedRanker, rows: Sequence[Mapping[str, Any]], size: int
) -> list[ScoredRequest]:
    """Return `size` requests with the answers of `model`: nothing known, unseen ids, `rows`."""
    names = model.names
    nothing = dict.fromkeys(names)
    unseen = {**rows[0], USER_ID: _UNSEEN, ITEM_ID: _UNSEEN}
    requests = [
        {name: _plain(name, row[name]) for name in names} for row in [nothing, unseen, *rows][:size]
    ]
    scores = np.asarray(model(tensors(requests, names)))
    return [
        ScoredRequest(inputs=inputs, score=float(score))
        for inputs, score in zip(requests, scores, strict=True)
    ]


def _plain(name: str, value: Any) -> Any:
    if name == USER_HISTORY:
        return [str(item) for item in value or []]
    if value is None:
        return None
    return str(value) if is_text(name) else float(value)
