"""Export of a Keras ranker for TensorFlow Serving: signature, warm-up requests, golden requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from pipelines.features.schema import FEATURES, ITEM_ID, USER_ID
from pipelines.models.base import ScoredRequest
from pipelines.online.ranking_inputs import INPUTS, TEXT_INPUTS, serving_inputs

SIGNATURE = "serving_default"
SCORE = "score"
_WARMUP_REQUESTS = 4
_UNSEEN = "(unseen)"


def export_saved_model(
    model: keras.Model, folder: Path, name: str, warmup: Sequence[Mapping[str, Any]]
) -> None:
    """Write `model` to `folder` for the server's model `name`, with warm-up requests.

    They are the first rows of `warmup` (raw features): without them the first live request would
    pay for the graph's start.
    """
    write_saved_model(model, folder)
    _write_warmup(folder / "assets.extra" / "tf_serving_warmup_requests", name, warmup)


def write_saved_model(model: keras.Model, folder: Path) -> None:
    """Write `model` to `folder` with the signature :data:`SIGNATURE`.

    Its inputs are :data:`INPUTS`, each [n] string or float32; its output is :data:`SCORE`, [n]
    float32.
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = {
        input_name: tf.TensorSpec(
            [None], tf.string if input_name in TEXT_INPUTS else tf.float32, name=input_name
        )
        for input_name in INPUTS
    }
    archive.add_endpoint(
        SIGNATURE,
        lambda inputs: {SCORE: model(inputs, training=False)},
        input_signature=[signature],
    )
    archive.write_out(str(folder), verbose=False)


def _write_warmup(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows[:_WARMUP_REQUESTS]:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = SIGNATURE
            for input_name, tensor in tensors([row]).items():
                request.inputs[input_name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())


def tensors(rows: Sequence[Mapping[str, Any]]) -> dict[str, tf.Tensor]:
    """Return rows of raw features as the model's inputs, each of shape [len(rows)]."""
    return {
        name: tf.constant(column, tf.string if name in TEXT_INPUTS else tf.float32)
        for name, column in serving_inputs(rows).items()
    }


def golden_requests(
    model: keras.Model, rows: Sequence[Mapping[str, Any]], size: int
) -> list[ScoredRequest]:
    """Return `size` requests with the answers of `model`: nothing known, unseen ids, `rows`."""
    nothing = dict.fromkeys(INPUTS)
    unseen = {**rows[0], USER_ID: _UNSEEN, ITEM_ID: _UNSEEN}
    texts_and_numbers = [
        {
            name: None if value is None else str(value) if name in TEXT_INPUTS else float(value)
            for name, value in ((name, row[name]) for name in (USER_ID, ITEM_ID, *FEATURES))
        }
        for row in [nothing, unseen, *rows][:size]
    ]
    scores = np.asarray(model(tensors(texts_and_numbers), training=False))
    return [
        ScoredRequest(inputs=inputs, score=float(score))
        for inputs, score in zip(texts_and_numbers, scores, strict=True)
    ]
