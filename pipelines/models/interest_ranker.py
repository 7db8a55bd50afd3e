"""Unit `interest_ranker`: interest vectors of users in Redis, and a light SavedModel over them.

Both halves come from one training (:mod:`pipelines.models.rankers.interests`) and carry one
version. Evaluated is the uncut network on the holdout's own moments; what the rounding to float16
costs stands beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before TensorFlow: its package sets how that starts.
from pipelines.models.rankers.training import Fitted, Trainer

# isort: split
import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
from keras import ops

from pipelines.evaluation.scores import auc
from pipelines.features.schema import (
    GENRES,
    ITEM_FEATURES,
    ITEM_GENRES,
    ITEM_ID,
    NUMBERS,
    USER_FEATURES,
    USER_GENRES,
    USER_HISTORY,
    USER_ID,
)
from pipelines.models.base import BuildInputs, Built, Metric, ScoredRequest, Table
from pipelines.models.rankers.encoded import (
    HISTORY,
    ITEM,
    NUMBERS_IN,
    OF_ITEM,
    OF_USER,
    RESERVED,
    Shape,
    columns,
    encode_lists,
    named,
)
from pipelines.models.rankers.export import Served, add_warmup, tensors
from pipelines.models.rankers.inputs import genre_lookup, raw_numbers
from pipelines.models.rankers.interests import ENCODER, LIGHT, item_vectors, network, unknown_item
from pipelines.models.rankers.samples import HOLDOUT, Samples
from pipelines.models.rankers.unit import Evaluated, evaluate, measure_stored
from pipelines.models.stored import EVALUATION
from pipelines.online.ranking_inputs import INTERESTS, ITEM_VECTOR, is_user_input, light_row

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

UNIT = "interest_ranker"
#: The raw inputs of the light model.
LIGHT_INPUTS = (INTERESTS, ITEM_VECTOR, *GENRES, *NUMBERS)
_ENCODED_AT_ONCE = 8192


def build(spark: SparkSession, inputs: BuildInputs) -> Built:
    """Evaluate, then make the tables ``interests`` and ``item_vectors``, and ``saved_model``.

    Users without a positive event have no interests, and items without an event no vector: the
    light model takes NaN for them, as for anything that is missing.

    Raises:
        DataError: no samples, an empty holdout, only one label, or scores that are not finite.
    """
    trainer = make_trainer(inputs)
    kept = inputs.workdir / EVALUATION
    evaluated = evaluate(trainer, inputs, kept)
    metrics = {**evaluated.metrics, "auc_as_stored": _as_stored(trainer, evaluated)}
    for name, metric in metrics.items():
        log.info("%s %s: %s", UNIT, name, metric.describe())

    released = trainer.fit(None, evaluated.epochs, "to release")
    light = LightModel(released)
    encoder = InterestEncoder(released, trainer.shape)
    users = encoder.write(inputs.paths.user_features, inputs.workdir / "interests.parquet")
    items = write_item_vectors(released, inputs.workdir / "item_vectors.parquet")
    golden = _golden_rows(inputs, encoder, released)
    folder = inputs.workdir / "saved_model"
    light.write(folder)
    add_warmup(folder, UNIT, golden, LIGHT_INPUTS)
    return Built(
        metrics=metrics,
        params=trainer.params(evaluated.epochs),
        tables=[
            Table("interests", "vector", spark.read.parquet(str(users))),
            Table("item_vectors", "vector", spark.read.parquet(str(items))),
        ],
        files={"saved_model": folder, EVALUATION: kept},
        golden=_scored(light, golden),
        calibration=evaluated.calibration,
    )


def evaluate_stored(spark: SparkSession, inputs: BuildInputs, folder: Path) -> dict[str, float]:
    """Return the metrics of the SavedModel in `folder`, of this or another run, on this holdout.

    Raises:
        DataError: a score is not finite.
    """
    return measure_stored(inputs, folder)


def compare(spark: SparkSession, inputs: BuildInputs) -> dict[str, dict[str, Metric]]:
    """Return the uncut network's metrics on the holdout, by the unit's name.

    Raises:
        DataError: as :func:`build`.
    """
    return {UNIT: evaluate(make_trainer(inputs), inputs, inputs.workdir / EVALUATION).metrics}


def make_trainer(inputs: BuildInputs) -> Trainer:
    """Return what fits the uncut network to the run's samples."""
    return Trainer(
        network=network,
        config=inputs.config.models.interest_ranker,
        samples=Samples(inputs.paths.samples),
        shape=Shape.of(inputs.config.features.history_length),
        seed=inputs.config.seed,
        folder=inputs.workdir,
        name=UNIT,
    )


class InterestEncoder:
    """The half of a network that runs offline."""

    def __init__(self, fitted: Fitted, shape: Shape) -> None:
        self._encoder = fitted.network.get_layer(ENCODER)
        self._items = fitted.statistics.items
        self._length = shape.history

    def __call__(self, histories: pa.ChunkedArray) -> Any:
        """Return interests [n, M * d] float32 of lists of items, newest first."""
        encoded = encode_lists(histories, self._items, self._length)
        return np.asarray(self._encoder.predict_on_batch(encoded))

    def write(self, user_features: str, path: Path) -> Path:
        """Write ``id`` and ``value`` of all users with a history to one Parquet file.

        `user_features` is read in parts, so that memory does not grow with the users.
        """
        has_history = pc.list_value_length(pc.field(USER_HISTORY)) > 0
        tables = Samples(user_features).tables(
            has_history, [USER_ID, USER_HISTORY], _ENCODED_AT_ONCE
        )
        return _write_vectors(
            ((table[USER_ID], self(table[USER_HISTORY])) for table in tables), path
        )


def write_item_vectors(fitted: Fitted, path: Path) -> Path:
    """Write ``id`` and ``value`` of all items of the vocabulary to one Parquet file."""
    vectors = item_vectors(fitted.network)[RESERVED:]
    return _write_vectors(iter([(fitted.statistics.items, vectors)]), path)


def _write_vectors(parts: Iterator[tuple[Any, Any]], path: Path) -> Path:
    writer: pq.ParquetWriter | None = None
    try:
        for ids, vectors in parts:
            flat = pa.array(vectors.astype(np.float32).ravel())
            offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
            values = pa.ListArray.from_arrays(pa.array(offsets), flat)
            table = pa.table({"id": ids, "value": values})
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()
    return path


class LightModel(Served):
    """The half that is served: raw inputs, among them the two vectors, to scores."""

    def __init__(self, fitted: Fitted) -> None:
        super().__init__()
        self.light = fitted.network.get_layer(LIGHT)
        self.genres = genre_lookup(fitted.statistics)
        unknown = unknown_item(fitted.network)
        self._unknown_item = self.add_weight(
            shape=unknown.shape, name="unknown_item", trainable=False
        )
        self._unknown_item.assign(unknown)
        self._sizes = {name: self.light.input[name].shape[1] for name in (INTERESTS, ITEM_VECTOR)}

    @property
    def names(self) -> tuple[str, ...]:
        """The raw inputs."""
        return LIGHT_INPUTS

    def shape_of(self, name: str) -> tuple[int | None, ...]:
        """Return the shape of a raw input of one row."""
        return (self._sizes[name],) if name in self._sizes else ()

    def lookups(self) -> Sequence[keras.layers.StringLookup]:
        """Return that of genres."""
        return [self.genres]

    def call(self, raw: dict[str, Any]) -> Any:
        """Return the probability [n] of raw inputs of n rows.

        NaN interests are those of a user without a history, a NaN vector that of an unknown item.
        """
        item, interests = raw[ITEM_VECTOR], raw[INTERESTS]
        given = {
            INTERESTS: ops.where(ops.isnan(interests), 0.0, interests),
            ITEM_VECTOR: ops.where(ops.isnan(item), self._unknown_item, item),
            OF_USER: self._encoded(raw, USER_GENRES),
            OF_ITEM: self._encoded(raw, ITEM_GENRES),
            NUMBERS_IN: raw_numbers(raw, NUMBERS),
        }
        return self.light(given, training=False)

    def _encoded(self, raw: dict[str, Any], names: Sequence[str]) -> Any:
        return ops.cast(ops.stack([self.genres(raw[name]) for name in names], axis=1), "int32")

    def rank(self, raw: dict[str, Any]) -> Any:
        """Return the probability [n] of n candidates for one user, whose inputs have one row."""
        count = ops.shape(raw[ITEM_VECTOR])[0]
        rows = {
            name: ops.repeat(column, count, axis=0) if is_user_input(name) else column
            for name, column in raw.items()
        }
        return self(rows)


def _as_stored(trainer: Trainer, evaluated: Evaluated) -> Metric:
    """Return the AUC with both vectors rounded to float16, as Redis keeps them."""
    network = evaluated.fitted.network
    encoder, light = network.get_layer(ENCODER), network.get_layer(LIGHT)
    vectors = _rounded(item_vectors(network))
    labels, scores = [], []
    with trainer.encoded(HOLDOUT, evaluated.fitted.statistics) as encoded:
        for part in encoded.parts(_ENCODED_AT_ONCE):
            ids, raw, label = columns(part)
            batch = named(tf.constant(ids), tf.constant(raw), trainer.shape)
            given = {
                INTERESTS: tf.constant(_rounded(encoder(batch[HISTORY], training=False))),
                ITEM_VECTOR: tf.constant(vectors[batch[ITEM].numpy()]),
                **{name: batch[name] for name in (OF_USER, OF_ITEM, NUMBERS_IN)},
            }
            labels.append(label.astype(float))
            scores.append(np.asarray(light(given, training=False)).astype(float))
    stored = auc(np.concatenate(labels), np.concatenate(scores))
    return Metric(value=stored, baselines={"float32": evaluated.metrics["auc"].value})


def _rounded(vectors: Any) -> Any:
    return np.asarray(vectors).astype(np.float16).astype(np.float32)


def _golden_rows(
    inputs: BuildInputs, encoder: InterestEncoder, fitted: Fitted
) -> list[dict[str, Any]]:
    """Return raw inputs as a client will send them: nothing known, then users with items."""
    size = inputs.config.release.golden_size
    users = Samples(inputs.paths.user_features).head(size, [USER_ID, USER_HISTORY, *USER_FEATURES])
    items = Samples(inputs.paths.item_features).head(size, [ITEM_ID, *ITEM_FEATURES])
    known_items = fitted.statistics.items
    history_type = pa.list_(known_items.type)
    interests = _rounded(
        encoder(pa.chunked_array([pa.array([u[USER_HISTORY] for u in users], history_type)]))
    )
    vectors = _rounded(item_vectors(fitted.network))
    places = {item: place for place, item in enumerate(known_items.to_pylist(), RESERVED)}
    missing_item = [None] * vectors.shape[1]
    nothing: dict[str, Any] = dict.fromkeys(LIGHT_INPUTS)
    rows = [{**nothing, INTERESTS: [None] * interests.shape[1], ITEM_VECTOR: missing_item}]
    for user, interest, item in zip(users, interests, items, strict=False):
        place = places.get(item[ITEM_ID])
        values = {**user, **item}
        rows.append(
            light_row(
                values,
                interest.tolist() if user[USER_HISTORY] else [None] * len(interest),
                missing_item if place is None else vectors[place].tolist(),
            )
        )
    return rows[:size]


def _scored(light: LightModel, rows: Sequence[Mapping[str, Any]]) -> list[ScoredRequest]:
    scores = np.asarray(light(tensors(rows, LIGHT_INPUTS)))
    return [
        ScoredRequest(inputs=dict(row), score=float(score))
        for row, score in zip(rows, scores, strict=True)
    ]
