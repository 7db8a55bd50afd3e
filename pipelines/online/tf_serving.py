"""A client for one TensorFlow Serving replica: predictions by gRPC and REST, status, reload.

It always asks for one exact version: unlabelled traffic would go to whatever version is the
highest that is loaded, a candidate under verification included.
"""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import grpc
import httpx
import numpy as np

from pipelines.config import Replica
from pipelines.errors import ServiceError
from pipelines.online import serving_protos as pb
from pipelines.online.ranking_inputs import Column
from pipelines.patience import Patience, patient

#: A column for each input: texts, numbers (NaN for a missing one), or lists of either, all of the
#: same length within a column.
Inputs = Mapping[str, Column]

#: Signatures: rows, each with all inputs; and one row of a user's inputs with any number of items.
DEFAULT_SIGNATURE = "serving_default"
RANK_SIGNATURE = "rank"

_DEADLINE_SECONDS = 10.0
_STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}


@cache
def _certificates() -> ssl.SSLContext:
    """Return what httpx would load anew for each client, which takes longer than a prediction."""
    return httpx.create_ssl_context(trust_env=False)


class ModelServer:
    """One replica. Every method raises ServiceError, naming the address, when it fails.

    With the patience of a step an answer may take longer on a crowded machine.
    """

    def __init__(self, replica: Replica, patience: Patience = Patience.READER) -> None:
        self.replica = replica
        self._patience = patience
        self._channel = grpc.insecure_channel(replica.grpc)
        self._predictions = pb.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = pb.model_service_pb2_grpc.ModelServiceStub(self._channel)
        # trust_env=False: a proxy of the environment must not see, or lose, local predictions.
        self._http = httpx.Client(
            base_url=replica.rest,
            trust_env=False,
            verify=_certificates(),
        )

    def _within(self) -> float:
        """Return the seconds within which an answer must come."""
        if self._patience is Patience.READER:
            return _DEADLINE_SECONDS
        return patient(_DEADLINE_SECONDS)

    def close(self) -> None:
        """Close the connections."""
        self._channel.close()
        self._http.close()

    def __enter__(self) -> ModelServer:
        """Return the client, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def _call(self, method: Callable[..., Any], request: Any, seconds: float) -> Any:
        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as error:
            code, details = error.code().name, error.details()
            raise ServiceError(
                f"model server at {self.replica.grpc} (gRPC): {code}: {details}"
            ) from error

    def reload(self, config: Any, seconds: float) -> None:
        """Replace the server's whole configuration (a ``ModelServerConfig`` message).

        `seconds` are those of a quiet machine.

        Raises:
            ValueError: the configuration names no model; that would unload everything.
        """
        if not config.model_config_list.config:
            raise ValueError("an empty model configuration would unload every model")
        self._replace_config(config, seconds)

    def unload_everything(self, seconds: float) -> None:
        """Let the server serve nothing."""
        config = pb.model_server_config_pb2.ModelServerConfig()
        # Without the list a server takes it for no change at all.
        config.model_config_list.SetInParent()
        self._replace_config(config, seconds)

    def _replace_config(self, config: Any, seconds: float) -> None:
        request = pb.model_management_pb2.ReloadConfigRequest(config=config)
        reload = self._models.HandleReloadConfigRequest
        answer = self._call(reload, request, patient(seconds))
        if answer.status.error_code:
            raise ServiceError(
                f"model server at {self.replica.grpc} refused its configuration: "
                f"{answer.status.error_message}"
            )

    def versions(self, model: str) -> dict[int, tuple[str, str]]:
        """Return each known version's state and, when there is one, its error message.

        A model that the server has not heard of has no versions.
        """
        request = pb.get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            answer = self._models.GetModelStatus(request, timeout=self._within())
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return {}
            raise ServiceError(
                f"model server at {self.replica.grpc} (gRPC): "
                f"{error.code().name}: {error.details()}"
            ) from error
        return {
            v.version: (_STATES.get(v.state, str(v.state)), v.status.error_message)
            for v in answer.model_version_status
        }

    def predict_grpc(
        self, model: str, version: int, inputs: Inputs, signature: str = DEFAULT_SIGNATURE
    ) -> list[float]:
        """Return the ``score`` of each row, by gRPC."""
        request = pb.predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.version.value = version
        request.model_spec.signature_name = signature
        for name, column in inputs.items():
            _fill(request.inputs[name], column)
        answer = self._call(self._predictions.Predict, request, self._within())
        score = answer.outputs["score"]
        if score.tensor_content:
            scores: list[float] = np.frombuffer(score.tensor_content, "<f4").tolist()
        else:
            scores = list(score.float_val)
        return self._checked(scores, inputs)

    def predict_rest(
        self, model: str, version: int, inputs: Inputs, signature: str = DEFAULT_SIGNATURE
    ) -> list[float]:
        """Return the ``score`` of each row, by REST."""
        path = f"/v1/models/{model}/versions/{version}:predict"
        # json writes a bare NaN, which is what the server reads and writes for a missing number.
        columns = {name: list(column) for name, column in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns})
        with self._rest_errors():
            answer = self._http.post(path, content=body, timeout=self._within())
            content = json.loads(answer.text)
        if answer.status_code != httpx.codes.OK:
            raise ServiceError(
                f"model server at {self.replica.rest}{path}: {answer.status_code}: "
                f"{content.get('error', answer.text)}"
            )
        return self._checked([float(score) for score in content["outputs"]], inputs)

    def _checked(self, scores: list[float], inputs: Inputs) -> list[float]:
        rows = max(len(column) for column in inputs.values())
        if len(scores) != rows or not all(math.isfinite(score) for score in scores):
            raise ServiceError(
                f"model server at {self.replica.grpc}: {len(scores)} scores for {rows} rows, "
                f"or one that is not finite: {scores[:5]}"
            )
        return scores

    @contextmanager
    def _rest_errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, json.JSONDecodeError) as error:
            raise ServiceError(
                f"model server at {self.replica.rest} (REST): {error or type(error).__name__}"
            ) from error


def _fill(tensor: Any, column: Column) -> None:
    """Write a column into a ``TensorProto``."""
    values: list[Any] = list(column)
    tensor.tensor_shape.dim.add(size=len(values))
    if values and isinstance(values[0], list):
        tensor.tensor_shape.dim.add(size=len(values[0]))
        values = [value for row in values for value in row]
    if values and isinstance(values[0], str):
        tensor.dtype = pb.types_pb2.DT_STRING
        tensor.string_val.extend(text.encode() for text in values)
    else:
        tensor.dtype = pb.types_pb2.DT_FLOAT
        tensor.float_val.extend(float(number) for number in values)
