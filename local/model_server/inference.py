"""Predict, Classify, Regress and MultiInference on one loaded version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.classification_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
    ClassificationResult,
)
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest, MultiInferenceResponse
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.regression_pb2 import (
    RegressionRequest,
    RegressionResponse,
    RegressionResult,
)

from local.model_server.errors import Code, ServingError, invalid
from local.model_server.saved_model import SavedModel
from local.model_server.tensors import Array, check_dtypes, dtype_name, from_proto, to_proto

DEFAULT_SIGNATURE = "serving_default"
_PREDICT = "tensorflow/serving/predict"
_CLASSIFY = "tensorflow/serving/classify"
_REGRESS = "tensorflow/serving/regress"


def run_signature(
    model: SavedModel,
    signature_name: str,
    inputs: Mapping[str, Array],
    output_filter: Sequence[str] = (),
) -> dict[str, Array]:
    """Run a signature on named arrays and return its named outputs (all, or the filtered ones).

    Raises:
        ServingError: FAILED_PRECONDITION for an unknown signature; INVALID_ARGUMENT for inputs
            or outputs that are not the signature's (words of ``predict_util.cc``).
    """
    signature = model.signatures.get(signature_name)
    if signature is None:
        raise ServingError(
            Code.FAILED_PRECONDITION, f'Serving signature key "{signature_name}" not found.'
        )
    if signature.method_name not in (_PREDICT, _CLASSIFY, _REGRESS):
        raise ServingError(
            Code.INTERNAL,
            f"Expected prediction signature method_name to be one of {{{_PREDICT}, {_CLASSIFY}, "
            f"{_REGRESS}}}. Was: {signature.method_name}",
        )
    _check_inputs(signature, inputs)
    outputs = list(output_filter) or sorted(signature.outputs)
    for position, alias in enumerate(outputs):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in "
                f"the set {{{','.join(sorted(signature.outputs))}}}."
            )
        if alias in outputs[:position]:
            raise invalid(f"duplicate output tensor alias: {alias}")
    arrays = model.run(
        {signature.inputs[alias].name: inputs[alias] for alias in sorted(inputs)},
        [signature.outputs[alias].name for alias in outputs],
    )
    return dict(zip(outputs, arrays, strict=True))


def predict(model: SavedModel, version: int, request: PredictRequest) -> PredictResponse:
    """Answer a PredictRequest; the response names the signature and version that answered."""
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    inputs = {alias: from_proto(alias, proto) for alias, proto in request.inputs.items()}
    outputs = run_signature(model, name, inputs, list(request.output_filter))
    response = PredictResponse(model_spec=_effective(request.model_spec, name, version))
    for alias, array in outputs.items():
        dtype = model.signatures[name].outputs[alias].dtype
        response.outputs[alias].CopyFrom(to_proto(array, dtype))
    return response


def classify(
    model: SavedModel, version: int, request: ClassificationRequest
) -> ClassificationResponse:
    """Answer a ClassificationRequest (rules of ``classifier.cc``)."""
    name, signature = _example_signature(model, request.model_spec, _CLASSIFY, "classification")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    aliases = [alias for alias in ("classes", "scores") if alias in signature.outputs]
    if not aliases:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Signature was: {signature}',
        )
    examples = _serialized_examples(request.input)
    outputs = _run_examples(model, signature, examples, aliases)
    for alias, wanted in (("classes", "string"), ("scores", "float")):
        if alias in outputs:
            _check_class_output(alias, wanted, outputs[alias], signature, len(examples))
    widths = {array.shape[1] for array in outputs.values()}
    if len(widths) > 1:
        raise invalid("Tensors class and score should match in dim_size(1).")
    response = ClassificationResponse(model_spec=_effective(request.model_spec, name, version))
    _fill_classes(response.result, len(examples), widths.pop(), outputs)
    return response


def regress(model: SavedModel, version: int, request: RegressionRequest) -> RegressionResponse:
    """Answer a RegressionRequest (rules of ``regressor.cc``)."""
    name, signature = _example_signature(model, request.model_spec, _REGRESS, "regression")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if "outputs" not in signature.outputs:
        raise ServingError(
            Code.FAILED_PRECONDITION, f"No regression outputs found in SignatureDef: {signature}"
        )
    examples = _serialized_examples(request.input)
    values = _run_examples(model, signature, examples, ["outputs"])["outputs"]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shape(values)}"
        )
    if values.shape[0] != len(examples):
        raise invalid(
            "Input batch size did not match output batch size: "
            f"{len(examples)} vs. {values.shape[0]}"
        )
    if values.dtype != np.float32:
        dtype = dtype_name(signature.outputs["outputs"].dtype)
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: DT_{dtype.upper()}")
    result = RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    spec = _effective(request.model_spec, name, version)
    return RegressionResponse(model_spec=spec, result=result)


def multi_inference(
    model: SavedModel, version: int, request: MultiInferenceRequest
) -> MultiInferenceResponse:
    """Answer several Classify and Regress tasks on the same examples."""
    response = MultiInferenceResponse()
    for task in request.tasks:
        result = response.results.add()
        if task.method_name == _CLASSIFY:
            ask = ClassificationRequest(model_spec=task.model_spec, input=request.input)
            classified = classify(model, version, ask)
            result.model_spec.CopyFrom(classified.model_spec)
            result.classification_result.CopyFrom(classified.result)
        elif task.method_name == _REGRESS:
            regressed = regress(
                model, version, RegressionRequest(model_spec=task.model_spec, input=request.input)
            )
            result.model_spec.CopyFrom(regressed.model_spec)
            result.regression_result.CopyFrom(regressed.result)
        else:
            raise ServingError(
                Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
            )
    return response


def _check_inputs(signature: SignatureDef, inputs: Mapping[str, Array]) -> None:
    wanted = set(signature.inputs)
    given = set(inputs)
    if len(given) != len(wanted):
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(wanted)} "
            f"len({{{_names(given)}}}) != len({{{_names(wanted)}}}). "
            f"Sent extra: {{{_names(given - wanted)}}}. "
            f"Missing but required: {{{_names(wanted - given)}}}."
        )
    for alias in sorted(given - wanted):
        raise invalid(
            f"input tensor alias not found in signature: {alias}. Inputs expected to be in the "
            f"set {{{_names(wanted)}}}."
        )
    check_dtypes(inputs, {alias: info.dtype for alias, info in signature.inputs.items()})


def _example_signature(
    model: SavedModel, spec: ModelSpec, method: str, kind: str
) -> tuple[str, SignatureDef]:
    """Return the signature of a request that carries tf.Examples, checked for its method."""
    name = spec.signature_name or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    if signature.method_name != method:
        raise invalid(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}"
        )
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if "inputs" not in signature.inputs:
        raise ServingError(
            Code.FAILED_PRECONDITION, f"No {kind} inputs found in SignatureDef: {signature}"
        )
    return name, signature


def _serialized_examples(given: Input) -> list[bytes]:
    """Return the examples as bytes; protobuf merges by concatenation, so a context is a prefix."""
    if given.WhichOneof("kind") == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        examples = given.example_list_with_context.examples
    else:
        context, examples = b"", given.example_list.examples
    if not examples:
        raise invalid("Input is empty.")
    return [context + example.SerializeToString() for example in examples]


def _run_examples(
    model: SavedModel, signature: SignatureDef, examples: list[bytes], aliases: list[str]
) -> dict[str, Array]:
    feed = np.empty(len(examples), dtype=object)
    feed[:] = examples
    fetches = [signature.outputs[alias].name for alias in aliases]
    arrays = model.run({signature.inputs["inputs"].name: feed}, fetches)
    return dict(zip(aliases, arrays, strict=True))


def _check_class_output(
    alias: str, wanted: str, array: Array, signature: SignatureDef, count: int
) -> None:
    if array.ndim != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
    given = dtype_name(signature.outputs[alias].dtype)
    if given != wanted:
        raise invalid(f"Expected {alias} Tensor of DT_{wanted.upper()}. Got: DT_{given.upper()}")
    if array.shape[0] != count:
        raise invalid(f"Expected {alias} output batch size of {count}. Got: {array.shape[0]}")


def _fill_classes(
    result: ClassificationResult, count: int, width: int, outputs: Mapping[str, Array]
) -> None:
    classes, scores = outputs.get("classes"), outputs.get("scores")
    for row in range(count):
        classifications = result.classifications.add()
        for column in range(width):
            item = classifications.classes.add()
            if classes is not None:
                item.label = classes[row, column].decode("utf-8", "replace")
            if scores is not None:
                item.score = float(scores[row, column])


def _effective(spec: ModelSpec, signature_name: str, version: int) -> ModelSpec:
    effective = ModelSpec(name=spec.name, signature_name=signature_name)
    effective.version.value = version
    return effective


def _names(names: set[str]) -> str:
    return ",".join(sorted(names))


def _shape(array: Array) -> str:
    return f"[{','.join(map(str, array.shape))}]"
