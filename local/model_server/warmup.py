"""Replays recorded requests on a fresh version, so that no client pays for the first run."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from local.model_server import inference
from local.model_server.errors import Code, ServingError, invalid
from local.model_server.saved_model import SavedModel

_log = logging.getLogger(__name__)
_FILE = Path("assets.extra", "tf_serving_warmup_requests")
_MAX_RECORDS = 1000


def replay(model: SavedModel, version: int, path: Path, iterations: int = 1) -> int:
    """Run each record of the version's warmup file and return how many there were.

    The file is optional: a TFRecord of ``PredictionLog``, at most 1000 records
    (``saved_model_warmup_util.cc``).

    Raises:
        ServingError: a record that fails or does not parse, a file that is no TFRecord, or too
            many records; the load of the version then fails with it.
    """
    file = path / _FILE
    if not file.is_file():
        return 0
    started = time.monotonic()
    count = 0
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            log = _parse(record, file)
            for _ in range(max(iterations, 1)):
                _run(model, version, log)
            count += 1
            if count > _MAX_RECORDS:
                raise invalid(
                    f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {file}"
                )
    except tf.errors.DataLossError as error:
        raise ServingError(
            Code.DATA_LOSS,
            f"{error.message}. Please verify your warmup data is in TFRecord format.",
        ) from error
    _log.info("%s: %d warmup records in %.3f s", file, count, time.monotonic() - started)
    return count


def _parse(record: bytes, file: Path) -> PredictionLog:
    try:
        return PredictionLog.FromString(record)
    except DecodeError as error:
        raise invalid(f"Failed to parse warmup record from {file}") from error


def _run(model: SavedModel, version: int, log: PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        inference.predict(model, version, log.predict_log.request)
    elif kind == "classify_log":
        inference.classify(model, version, log.classify_log.request)
    elif kind == "regress_log":
        inference.regress(model, version, log.regress_log.request)
    elif kind == "multi_inference_log":
        inference.multi_inference(model, version, log.multi_inference_log.request)
    elif kind is not None:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
