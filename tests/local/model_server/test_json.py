"""JSON to arrays and back, by the rules of TensorFlow Serving."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from local.model_server.errors import Code, ServingError
from local.model_server.json_answers import encode, predictions
from local.model_server.json_tensor import parse_inputs, parse_object


def inputs(document: dict[str, Any], **types: str) -> dict[str, Any]:
    return parse_inputs(document, types)[0]


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ([1, 2.5], "float", np.array([1, 2.5], np.float32)),
        ([[1], [2]], "double", np.array([[1.0], [2.0]])),
        (3, "int64", np.array(3)),
        ([[[1]], [[2]]], "int32", np.array([[[1]], [[2]]], np.int32)),
        ([], "float", np.array([], np.float32)),
        ([[], []], "float", np.zeros((2, 0), np.float32)),
        ([True, False], "bool", np.array([True, False])),
        ([18446744073709551615], "uint64", np.array([2**64 - 1], np.uint64)),
        (["ü", {"b64": "/w=="}], "string", np.array(["ü".encode(), b"\xff"], object)),
        ({"b64": "/w"}, "string", np.array(b"\xff", object)),
        ([float("nan"), float("inf")], "float", np.array([np.nan, np.inf], np.float32)),
    ],
)
def test_columns(value: Any, dtype: str, expected: Any) -> None:
    found = inputs({"inputs": value}, x=dtype)["x"]
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)


ELEMENT = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "


@pytest.mark.parametrize(
    ("document", "dtype", "message"),
    [
        ({"inputs": [1, "a"]}, "float", 'JSON Value: "a" Type: String is not of expected type'),
        ({"inputs": [1, True]}, "float", "JSON Value: true Type: True is not of expected type"),
        ({"inputs": [None]}, "string", "JSON Value: null Type: Null is not of expected type"),
        ({"inputs": [1.0]}, "int64", "Type: Number is not of expected type: int64"),
        ({"inputs": [300]}, "int8", "Type: Number is not of expected type: int8"),
        ({"inputs": [2**64]}, "uint64", "is not of expected type: uint64"),
        ({"inputs": [16777217]}, "float", "to float without loss of precision."),
        ({"inputs": [1e39]}, "float", "Cannot convert JSON value: 1e+39 to float"),
        ({"inputs": [2**53]}, "double", "to double without loss of precision."),
        ({"inputs": [10**400]}, "double", "to double without loss of precision."),
        ({"inputs": [[1], [1, 2]]}, "float", "list at unexpected size: 2 at level: 1 expected"),
        ({"inputs": [1, [2]]}, "float", "list at unexpected level: 1 expected < 1"),
        ({"inputs": [[1], 2]}, "float", "found at incorrect level: 2 in the JSON DOM."),
        ({"inputs": [{"b64": 1}]}, "string", "not formatted correctly for base64 data"),
        ({"inputs": [{"b64": "*"}]}, "string", "Unable to base64 decode"),
        ({"inputs": ["\ud800"]}, "string", "surrogate pair"),
        ({"instances": [1, "a"]}, "float", ELEMENT.format(1) + 'JSON Value: "a"'),
        ({"instances": [[1], [1, 2]]}, "float", "Expecting tensor size: 1 but got: 2"),
        ({"instances": [[[1, 2]], [[1], [2]]]}, "float", "shape [1,2] but got: [2,1]"),
        ({"instances": [1, {"x": 1}]}, "float", "value/list but got object at item 1"),
        ({"instances": [{"x": 1}, 1]}, "float", "object but got list at item 1"),
        ({"instances": [{"y": 1}]}, "float", "does not have named input: y"),
        ({"instances": [{"x": [1]}, {"x": 1}]}, "float", "Failed to process element: 1 key: x"),
    ],
)
def test_refused(document: Any, dtype: str, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        inputs(document, x=dtype)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert message in caught.value.message


def test_an_element_type_json_cannot_express() -> None:
    with pytest.raises(ServingError) as caught:
        inputs({"instances": [1.0]}, x="half")
    assert caught.value.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([2.5, 3.0, 4.5], np.float32), "[2.5, 3.0, 4.5]"),
        (np.array([0.1, 1 / 3, 9e6, 3e-5], np.float32), "[0.1, 0.333333343, 9e+06, 3e-05]"),
        (np.array([0.1, 1 / 3]), "[0.1, 0.33333333333333331]"),
        (np.array([np.nan, np.inf, -np.inf, -0.0]), "[NaN, Infinity, -Infinity, -0.0]"),
        (np.array([0.5], np.float16), "[0.5]"),
        (np.array([[True], [False]]), "[[true], [false]]"),
        (np.array([2**63 - 1]), "[9223372036854775807]"),
        (np.array([["ü"], ['"']], object), '[["ü"], ["\\""]]'),
        (np.zeros((2, 0), np.float32), "[[], []]"),
        (np.zeros((0, 2), np.float32), "[]"),
        (np.zeros((1, 2, 0), np.float32), "[[[], []]]"),
    ],
)
def test_answers(array: Any, expected: str) -> None:
    if array.dtype == object:
        array = np.vectorize(str.encode, otypes=[object])(array)
    assert predictions({"y": array}, row=True) == f'{{"predictions": {expected}}}'
    assert predictions({"y": array}, row=False) == f'{{"outputs": {expected}}}'


def test_bytes_go_out_as_base64_only_under_such_a_name() -> None:
    array = np.array([b"\xff"], object)
    assert predictions({"a_bytes": array}, row=True) == '{"predictions": [{"b64": "/w=="}]}'
    assert encode(predictions({"a": array}, row=True)) == b'{"predictions": ["\xff"]}'


def test_several_outputs() -> None:
    outputs = {"a": np.array([1, 2]), "b": np.array([[1.5], [2.5]])}
    assert json.loads(predictions(outputs, row=True)) == {
        "predictions": [{"a": 1, "b": [1.5]}, {"a": 2, "b": [2.5]}]
    }
    assert json.loads(predictions(outputs, row=False)) == {
        "outputs": {"a": [1, 2], "b": [[1.5], [2.5]]}
    }
    for name, array, message in (
        ("c", np.array(1), "Tensor name: c has no shape information"),
        ("c", np.array([1]), "Tensor name: c has inconsistent batch size: 1 expecting: 2"),
    ):
        with pytest.raises(ServingError, match=message):
            predictions({**outputs, name: array}, row=True)


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64]),
        arrays.array_shapes(max_dims=3, max_side=4),
        # The very largest float32 is written with 9 digits, rounds up, and is refused on its way
        # back, here as in the real server.
        elements=st.one_of(
            st.floats(-(2.0**127), 2.0**127, width=32),
            st.sampled_from([float("nan"), float("inf"), float("-inf")]),
        ),
    )
)
def test_what_goes_out_comes_back_unchanged(array: Any) -> None:
    dtype = "float" if array.dtype == np.float32 else "double"
    text = predictions({"x": array}, row=False)
    document = parse_object(text.encode())
    found = inputs({"inputs": document["outputs"]}, x=dtype)["x"]
    np.testing.assert_array_equal(found, array)


@given(st.lists(st.lists(st.binary(), min_size=2, max_size=2), min_size=1))
def test_bytes_come_back_unchanged(rows: list[list[bytes]]) -> None:
    array = np.empty((len(rows), 2), object)
    array[:] = rows
    document = parse_object(predictions({"x_bytes": array}, row=True).encode())
    found = inputs({"instances": document["predictions"]}, x="string")["x"]
    assert found.tolist() == rows
