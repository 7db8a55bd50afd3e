"""PredictionService and ModelService over gRPC."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
from tensorflow_serving.apis.classification_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
)
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
)
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
)
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest, MultiInferenceResponse
from tensorflow_serving.apis.model_management_pb2 import (
    ReloadConfigRequest,
    ReloadConfigResponse,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.model_service_pb2_grpc import add_ModelServiceServicer_to_server
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    add_PredictionServiceServicer_to_server,
)
from tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResponse

from local.model_server import inference, replies
from local.model_server.core import ModelRef, ServerCore
from local.model_server.errors import Code, ServingError, StartupError, invalid

_log = logging.getLogger(__name__)
_STATUS = {code.value[0]: code for code in grpc.StatusCode}

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = Any


def start_server(
    core: ServerCore,
    addresses: Sequence[str],
    threads: int,
    options: Sequence[tuple[str, int | str]] = (),
) -> grpc.Server:
    """Start a gRPC server.

    Args:
        core: what answers.
        addresses: ``host:port`` or ``unix:path``.
        threads: requests handled at the same time.
        options: further gRPC channel arguments.

    Raises:
        StartupError: an address cannot be bound.
    """
    server = grpc.server(
        ThreadPoolExecutor(threads, "grpc"),
        options=[
            ("grpc.so_reuseport", 0),  # else a second server shares the port instead of failing
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            *options,
        ],
    )
    add_PredictionServiceServicer_to_server(PredictionService(core), server)
    add_ModelServiceServicer_to_server(ModelService(core), server)
    for address in addresses:
        try:
            server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartupError(f"cannot serve gRPC at {address}: is it in use?") from error
    server.start()
    return server


class PredictionService:
    """``/tensorflow.serving.PredictionService``; methods as in the proto."""

    def __init__(self, core: ServerCore) -> None:
        self._core = core

    def Predict(self, request: PredictRequest, context: Context) -> PredictResponse:  # noqa: N802
        """Run a signature on tensors."""
        return _answer(context, self._on_model, request, inference.predict)

    def Classify(  # noqa: N802
        self, request: ClassificationRequest, context: Context
    ) -> ClassificationResponse:
        """Run a classification signature on tf.Examples."""
        return _answer(context, self._on_model, request, inference.classify)

    def Regress(  # noqa: N802
        self, request: RegressionRequest, context: Context
    ) -> RegressionResponse:
        """Run a regression signature on tf.Examples."""
        return _answer(context, self._on_model, request, inference.regress)

    def MultiInference(  # noqa: N802
        self, request: MultiInferenceRequest, context: Context
    ) -> MultiInferenceResponse:
        """Run several Classify and Regress tasks on one input."""
        return _answer(context, self._multi_inference, request)

    def GetModelMetadata(  # noqa: N802
        self, request: GetModelMetadataRequest, context: Context
    ) -> GetModelMetadataResponse:
        """Return the signatures of a model."""
        return _answer(context, self._metadata, request)

    def _on_model(self, request: Any, run: Callable[[Any, int, Any], Response]) -> Response:
        with self._core.use(_reference(request)) as (version, model):
            return run(model, version, request)

    def _multi_inference(self, request: MultiInferenceRequest) -> MultiInferenceResponse:
        if not request.tasks:
            raise invalid("Inference request has no tasks.")
        specs = [task.model_spec for task in request.tasks]
        if any((spec.name, spec.version) != (specs[0].name, specs[0].version) for spec in specs):
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model.")
        with self._core.use(_reference(request.tasks[0])) as (version, model):
            return inference.multi_inference(model, version, request)

    def _metadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        return replies.metadata(self._core, _reference(request), request.metadata_field)


class ModelService:
    """``/tensorflow.serving.ModelService``; methods as in the proto."""

    def __init__(self, core: ServerCore) -> None:
        self._core = core

    def GetModelStatus(  # noqa: N802
        self, request: GetModelStatusRequest, context: Context
    ) -> GetModelStatusResponse:
        """Return the states of a model's versions."""
        return _answer(context, lambda ask: replies.status(self._core, _reference(ask)), request)

    def HandleReloadConfigRequest(  # noqa: N802
        self, request: ReloadConfigRequest, context: Context
    ) -> ReloadConfigResponse:
        """Replace the whole model config."""
        return _answer(context, self._reload, request)

    def _reload(self, request: ReloadConfigRequest) -> ReloadConfigResponse:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest."
                " Only ModelConfigList is currently supported"
            )
        try:
            self._core.reload(request.config)
        except ServingError as error:
            _log.error("ReloadConfig failed: %s", error)
            raise
        response = ReloadConfigResponse()
        response.status.error_code = 0
        return response


def _reference(request: Any) -> ModelRef:
    """Return the model that any request with a ``model_spec`` names."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec: ModelSpec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return ModelRef(
        spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
    )


def _answer(context: Context, work: Callable[..., Response], *arguments: Any) -> Response:
    """Return the answer, or end the call with the status of the error."""
    try:
        return work(*arguments)
    except ServingError as error:
        failure = error
    except Exception as error:  # noqa: BLE001 - logged, and the client gets INTERNAL
        _log.exception("unexpected error in a gRPC request")
        failure = ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
    context.abort(_STATUS[int(failure.code)], failure.message)
    raise failure  # not reached: abort raises
