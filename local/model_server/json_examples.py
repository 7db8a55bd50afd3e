"""Classify and regress requests and answers as JSON (``util/json_tensor.cc``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.example.feature_pb2 import Feature
from tensorflow_serving.apis.classification_pb2 import ClassificationResult
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.apis.regression_pb2 import RegressionResult

from local.model_server.errors import ServingError, invalid
from local.model_server.json_answers import numbers, string
from local.model_server.json_tensor import decode_base64, echo, is_base64, json_type

_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)


def parse_examples(document: Mapping[str, Any]) -> Input:
    """Return the ``examples`` (and the shared ``context``) of a request.

    Raises:
        ServingError: INVALID_ARGUMENT with the reason.
    """
    given = Input()
    context = document.get("context")
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {echo(document)} When method is classify, key 'examples'"
            " is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid(
            f"JSON Value: {echo(document)} Expecting 'examples' value to be an list/array"
        )
    if not examples:
        raise invalid(f"JSON Value: {echo(document)} 'examples' value is an empty array")
    if "context" in document:
        given.example_list_with_context.context.CopyFrom(_example(context))
        target = given.example_list_with_context.examples
    else:
        target = given.example_list.examples
    target.extend(_example(item) for item in examples)
    return given


def classifications(result: ClassificationResult) -> str:
    """Return ``{"results": [[[label, score], …], …]}``."""
    rows = []
    for item in result.classifications:
        scores = numbers(np.array([found.score for found in item.classes], np.float32))
        labels = [string(found.label.encode()) for found in item.classes]
        pairs = (f"[{label}, {score}]" for label, score in zip(labels, scores, strict=True))
        rows.append(f"[{', '.join(pairs)}]")
    return f'{{"results": [{", ".join(rows)}]}}'


def regressions(result: RegressionResult) -> str:
    """Return ``{"results": [value, …]}``."""
    values = np.array([item.value for item in result.regressions], np.float32)
    return f'{{"results": [{", ".join(numbers(values))}]}}'


def _example(value: Any) -> Example:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    example = Example()
    for name, content in value.items():
        feature = example.features.feature[name]
        for item in content if isinstance(content, list) else [content]:
            _add(item, name, feature)
    return example


def _add(value: Any, name: str, feature: Feature) -> None:
    """Append one element; a feature holds elements of one kind only."""
    if isinstance(value, str) or is_base64(value):
        _same_kind(name, feature, "bytes_list")
        data = value.encode() if isinstance(value, str) else decode_base64(value)
        feature.bytes_list.value.append(data)
    elif isinstance(value, float):
        _same_kind(name, feature, "float_list")
        if math.isfinite(value) and abs(value) > np.finfo(np.float32).max:
            raise invalid(
                f"Cannot convert JSON value: {echo(value)} to float without loss of precision."
            )
        feature.float_list.value.append(value)
    elif isinstance(value, int):
        _same_kind(name, feature, "int64_list")
        if value not in _INT64:
            kind = "uint64" if value in _UINT64 else "too large an"
            raise invalid(f"Feature: {name} has {kind} element. Only int64 is supported.")
        feature.int64_list.value.append(int(value))
    else:
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")


def _same_kind(name: str, feature: Feature, kind: str) -> None:
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise _mixed(name, str(present))


def _mixed(name: str, present: str) -> ServingError:
    expected = present.removesuffix("_list")
    return invalid(f"Unexpected element type in feature: {name} expecting type: {expected}")
