"""TensorFlow Serving's messages and stubs, without importing TensorFlow.

The generated modules import ``tensorflow.core…_pb2``, and with it the whole of TensorFlow (ten
seconds and half a gigabyte) for the sake of plain message definitions. A bare package in
TensorFlow's place during the import is all they need. It is taken away again at once, so that a
later ``import tensorflow`` gets the real one.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any


def _import_messages() -> dict[str, Any]:
    stand_in = None
    if "tensorflow" not in sys.modules:
        spec = importlib.util.find_spec("tensorflow")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("tensorflow is not installed: its message definitions are needed")
        stand_in = types.ModuleType("tensorflow")
        stand_in.__path__ = list(spec.submodule_search_locations)
        sys.modules["tensorflow"] = stand_in
    try:
        from tensorflow.core.framework import types_pb2
        from tensorflow_serving.apis import (
            get_model_status_pb2,
            model_management_pb2,
            model_service_pb2_grpc,
            predict_pb2,
            prediction_service_pb2_grpc,
        )
        from tensorflow_serving.config import model_server_config_pb2
    finally:
        if stand_in is not None:
            for name in [n for n in sys.modules if n.split(".")[0] == "tensorflow"]:
                del sys.modules[name]
    return {
        "types": types_pb2,
        "status": get_model_status_pb2,
        "management": model_management_pb2,
        "model_service": model_service_pb2_grpc,
        "predict": predict_pb2,
        "prediction_service": prediction_service_pb2_grpc,
        "config": model_server_config_pb2,
    }


_MESSAGES = _import_messages()
types_pb2 = _MESSAGES["types"]
get_model_status_pb2 = _MESSAGES["status"]
model_management_pb2 = _MESSAGES["management"]
model_service_pb2_grpc = _MESSAGES["model_service"]
predict_pb2 = _MESSAGES["predict"]
prediction_service_pb2_grpc = _MESSAGES["prediction_service"]
model_server_config_pb2 = _MESSAGES["config"]
