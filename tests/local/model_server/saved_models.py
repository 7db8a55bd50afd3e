"""Tiny SavedModels on disk, written the way a trainer publishes them: staged, then renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

WARMUP = Path("assets.extra", "tf_serving_warmup_requests")


class _HalfPlus(tf.Module):  # type: ignore[misc]
    """y = x / 2 + offset, with the offset in a variable."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = tf.Variable(offset, dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def serve(self, x: Any) -> dict[str, Any]:
        return {"y": 0.5 * x + self.offset}


class _Kinds(tf.Module):  # type: ignore[misc]
    """Signatures with several inputs, outputs and element types, and a lookup table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(["drama", "comedy"]), tf.constant([10, 20], tf.int64)
            ),
            default_value=-1,
        )

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec([None], tf.int64, name="item"),
            tf.TensorSpec([None, 2], tf.string, name="genres"),
        ]
    )
    def rank(self, item: Any, genres: Any) -> dict[str, Any]:
        ids = self.table.lookup(genres)
        return {"next": item + 1, "ids": ids, "raw_bytes": genres[:, 0], "known": ids > 0}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float64, name="m")])  # type: ignore[untyped-decorator]
    def total(self, m: Any) -> dict[str, Any]:
        return {"total": tf.reduce_sum(m)}


def half_plus(base: Path, version: int | str, offset: float = 2.0) -> Path:
    """Write the lecture's model (`half_plus_two` with the default offset)."""
    module = _HalfPlus(offset)
    return _publish(base, version, lambda to: tf.saved_model.save(module, to, module.serve))


def kinds(base: Path, version: int) -> Path:
    """Write the model with many element types."""
    module = _Kinds()
    signatures = {"serving_default": module.rank, "total": module.total}
    return _publish(base, version, lambda to: tf.saved_model.save(module, to, signatures))


def examples(base: Path, version: int) -> Path:
    """Write a TensorFlow 1 model with Example-based signatures: score = x / 2 + c."""
    return _publish(base, version, _write_examples)


def _write_examples(to: str) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        features = {
            "x": tf.io.FixedLenFeature([1], tf.float32),
            "c": tf.io.FixedLenFeature([1], tf.float32, default_value=[2.0]),
        }
        parsed = tf.io.parse_example(serialized, features)
        score = 0.5 * parsed["x"] + parsed["c"]
        labels = tf.fill(tf.shape(score), "half")
        utils = v1.saved_model.signature_def_utils
        signatures = {
            "classify": utils.classification_signature_def(serialized, labels, score),
            "regress": utils.regression_signature_def(serialized, score),
        }
        builder = v1.saved_model.Builder(to)
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


def _publish(base: Path, version: int | str, write: Any) -> Path:
    staging, final = base / f"{version}.tmp", base / str(version)
    base.mkdir(parents=True, exist_ok=True)
    write(str(staging))
    return staging.rename(final)


def warmup(base: Path, version: int, *logs: PredictionLog, offset: float = 2.0) -> None:
    """Write a version of the lecture's model with a warmup file."""
    module = _HalfPlus(offset)

    def write(to: str) -> None:
        tf.saved_model.save(module, to, module.serve)
        file = Path(to) / WARMUP
        file.parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(file)) as writer:
            for log in logs:
                writer.write(log.SerializeToString())

    _publish(base, version, write)


def predict_log(signature: str = "serving_default") -> PredictionLog:
    """Return a warmup record for the lecture's model."""
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = "half_plus_two"
    request.model_spec.signature_name = signature
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array([1.0], np.float32)))
    return log
