"""The gRPC services of a running server."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

from pipelines.patience import patient
from tests.local.model_server.processes import Server


def predict_request(name: str = "half_plus_two", **inputs: Any) -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name = name
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return request


def fails(call: Any, request: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=patient(20))
    return caught.value.code(), caught.value.details()


def test_predict_names_the_signature_and_version_that_answered(server: Server) -> None:
    response = server.predictions.Predict(
        predict_request(x=np.array([1.0, 2.0, 5.0], np.float32)), timeout=20
    )
    assert list(response.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"


def test_predict_with_several_element_types_and_an_output_filter(server: Server) -> None:
    request = predict_request("kinds", item=np.array([1]), genres=np.array([["drama", "x"]]))
    response = server.predictions.Predict(request, timeout=patient(20))
    assert tf.make_ndarray(response.outputs["ids"]).tolist() == [[10, -1]]
    assert tf.make_ndarray(response.outputs["known"]).tolist() == [[True, False]]
    assert tf.make_ndarray(response.outputs["raw_bytes"]).tolist() == [b"drama"]
    request.output_filter.append("next")
    assert set(server.predictions.Predict(request, timeout=patient(20)).outputs) == {"next"}


def test_predict_errors(server: Server) -> None:
    call = server.predictions.Predict
    good = np.array([1.0], np.float32)
    assert fails(call, PredictRequest()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Missing ModelSpec",
    )
    assert fails(call, predict_request("other", x=good)) == (
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Latest(other)",
    )
    request = predict_request(x=good)
    request.model_spec.version.value = 5
    assert fails(call, request) == (
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Specific(half_plus_two, 5)",
    )
    request.model_spec.version_label = "nowhere"
    assert fails(call, request) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Unrecognized servable version label: nowhere",
    )
    request = predict_request(x=good)
    request.model_spec.signature_name = "other"
    assert fails(call, request) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        'Serving signature key "other" not found.',
    )
    assert fails(call, predict_request(x=np.array([1, 2]))) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Expects arg[0] to be float but int64 is provided",
    )
    code, message = fails(call, predict_request(x=good, z=good))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "Sent extra: {z}. Missing but required: {}." in message
    request = predict_request(x=good)
    request.output_filter.append("z")
    assert "output tensor alias not found in signature: z" in fails(call, request)[1]


def fill(request: Any, signature: str) -> Any:
    request.model_spec.name = "examples"
    request.model_spec.signature_name = signature
    example = request.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(20.0)
    return request


def test_classify_and_regress(server: Server) -> None:
    classified = server.predictions.Classify(
        fill(ClassificationRequest(), "classify"), timeout=patient(20)
    )
    (only,) = classified.result.classifications[0].classes
    assert (only.label, only.score) == ("half", 12.0)
    assert classified.model_spec.version.value == 1
    regressed = server.predictions.Regress(
        fill(RegressionRequest(), "regress"), timeout=patient(20)
    )
    assert [item.value for item in regressed.result.regressions] == [12.0]


def test_classify_errors(server: Server) -> None:
    call = server.predictions.Classify
    empty = ClassificationRequest()
    empty.model_spec.name = "examples"
    empty.model_spec.signature_name = "classify"
    assert fails(call, empty) == (grpc.StatusCode.INVALID_ARGUMENT, "Input is empty.")
    wrong = fails(call, fill(ClassificationRequest(), "regress"))
    assert "Expected classification signature method_name" in wrong[1]
    unknown = fails(call, fill(ClassificationRequest(), ""))
    assert unknown[1] == "No signature was found with the name: serving_default"


def test_multi_inference(server: Server) -> None:
    request = MultiInferenceRequest()
    example = request.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(20.0)
    for name in ("classify", "regress"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{name}")
        task.model_spec.name = "examples"
        task.model_spec.signature_name = name
    results = server.predictions.MultiInference(request, timeout=patient(20)).results
    assert results[0].classification_result.classifications[0].classes[0].score == 12.0
    assert results[1].regression_result.regressions[0].value == 12.0


def test_metadata(server: Server) -> None:
    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "kinds"
    response = server.predictions.GetModelMetadata(request, timeout=patient(20))
    assert response.model_spec.version.value == 7
    signatures = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "total"} <= set(signatures.signature_def)
    request.metadata_field.append("other")
    assert fails(server.predictions.GetModelMetadata, request) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Metadata field other is not supported",
    )


def test_status_errors(server: Server) -> None:
    call = server.models.GetModelStatus
    assert fails(call, GetModelStatusRequest())[0] is grpc.StatusCode.INVALID_ARGUMENT
    request = GetModelStatusRequest()
    request.model_spec.name = "other"
    assert fails(call, request) == (
        grpc.StatusCode.NOT_FOUND,
        "Could not find any versions of model other",
    )


def test_a_reload_without_a_list_is_refused(server: Server) -> None:
    code, message = fails(server.models.HandleReloadConfigRequest, ReloadConfigRequest())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "Only ModelConfigList is currently supported" in message
