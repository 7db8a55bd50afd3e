"""Predict requests as JSON, by the rules of ``util/json_tensor.cc``.

Pure: JSON text in, named NumPy arrays out. Strings are object arrays of bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from local.model_server.errors import Code, ServingError, invalid

Array = NDArray[Any]
_ECHO = 500  # characters of a faulty value that an error message repeats

_FLOATS: dict[str, np.dtype[np.floating[Any]]] = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
}
_INTEGERS = {
    name: np.dtype(name)
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")
}
# The largest integers whose neighbours are all exact: more would lose precision silently.
_EXACT_INTEGER = {"float": 2**24 - 1, "double": 2**53 - 1}


class _UnfitError(Exception):
    """A value does not fit its element type; the slow path finds out which and why."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a request body; raw ``NaN``, ``Infinity`` and ``-Infinity`` are numbers.

    Raises:
        ServingError: INVALID_ARGUMENT unless the body is one JSON object.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        reason = "Invalid value." if error.msg == "Expecting value" else error.msg
        raise invalid(f"JSON Parse error: {reason} at offset: {error.pos}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {echo(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the signature a request names, or an empty string.

    Raises:
        ServingError: INVALID_ARGUMENT when it is not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {echo(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def parse_inputs(
    document: Mapping[str, Any], types: Mapping[str, str]
) -> tuple[dict[str, Array], bool]:
    """Return the input arrays of a predict request, and whether it came in row form.

    Args:
        document: the request, with ``instances`` (row form) or ``inputs`` (column form).
        types: the element type of each input of the signature, by TensorFlow's names.

    Raises:
        ServingError: INVALID_ARGUMENT with the reason; UNIMPLEMENTED for an element type that
            JSON cannot express.
    """
    row, column = "instances" in document, "inputs" in document
    if row and column:
        raise invalid(
            f"JSON Value: {echo(document)} Not formatted correctly expecting only"
            " one of 'inputs' or 'instances' keys to exist "
        )
    if column:
        return _from_columns(document["inputs"], types), False
    if not row:
        raise invalid("Missing 'inputs' or 'instances' key")
    rows = document["instances"]
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {echo(document)} Excepting 'instances' to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {echo(document)} No values in 'instances' array")
    return _from_rows(rows, types), True


def is_base64(value: object) -> bool:
    """Whether a JSON value is ``{"b64": "…"}``."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: Any) -> bytes:
    """Return the bytes of ``{"b64": "…"}``.

    Raises:
        ServingError: INVALID_ARGUMENT for another object or text that is not base64.
    """
    if not is_base64(value):
        raise invalid(f"JSON Value: {echo(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"] + "=" * (-len(value["b64"]) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def echo(value: object) -> str:
    """Return a JSON value as an error message repeats it (long ones are cut)."""
    text = json.dumps(value)
    return text if len(text) <= _ECHO else f"{text[:_ECHO]}…"


def json_type(value: object) -> str:
    """Return the name of a JSON value's type in error messages."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def _from_rows(rows: list[Any], types: Mapping[str, str]) -> dict[str, Array]:
    if not isinstance(rows[0], dict) and len(types) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    if not _is_named(rows[0]):
        for position, item in enumerate(rows):
            if _is_named(item):
                raise invalid(
                    f"Expecting value/list but got object at item {position} of input list"
                )
        name, dtype = min(types.items())
        return {name: _stack(rows, dtype)}
    for position, item in enumerate(rows):
        _check_keys(position, item, types)
    return {
        name: _stack([item[name] for item in rows], dtype, name) for name, dtype in types.items()
    }


def _is_named(value: object) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _check_keys(position: int, item: Any, types: Mapping[str, str]) -> None:
    if not _is_named(item):
        raise invalid(f"Expecting object but got list at item {position} of input list")
    if item.keys() == types.keys():
        return
    for key in item:
        if key not in types:
            error = invalid(f"JSON object: does not have named input: {key}")
            raise _element_error(position, key, error)
    raise invalid(
        f"Failed to process element: {position} of 'instances' list. JSON object: {echo(item)} "
        f"keys must be equal to: {','.join(sorted(types))}"
    )


def _element_error(position: int, key: str | None, error: ServingError) -> ServingError:
    named = f" key: {key}" if key is not None else ""
    return invalid(
        f"Failed to process element: {position}{named} of 'instances' list. Error: {error}"
    )


def _stack(items: list[Any], dtype: str, key: str | None = None) -> Array:
    """Return the batch of the items, each a value of the same shape."""
    try:
        return _array(items, dtype)
    except _UnfitError:
        expected: list[int] | None = None
        for position, item in enumerate(items):
            shape = _dense_shape(item)
            try:
                _explain(item, dtype, shape)
                if expected is not None and shape != expected:
                    raise _shape_error(expected, shape) from None
            except ServingError as error:
                if error.code is Code.UNIMPLEMENTED:
                    raise
                raise _element_error(position, key, error) from error
            expected = shape
        raise


def _shape_error(expected: Sequence[int], shape: Sequence[int]) -> ServingError:
    size, given = int(np.prod(expected)), int(np.prod(shape))
    if size != given:
        return invalid(f"Expecting tensor size: {size} but got: {given}")
    texts = [f"[{','.join(map(str, dims))}]" for dims in (expected, shape)]
    return invalid(f"Expecting shape {texts[0]} but got: {texts[1]}")


def _from_columns(value: Any, types: Mapping[str, str]) -> dict[str, Array]:
    if not _is_named(value):
        if len(types) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        name, dtype = min(types.items())
        return {name: _column(value, dtype)}
    arrays = {}
    for name, dtype in sorted(types.items()):
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _column(value[name], dtype)
    return arrays


def _column(value: Any, dtype: str) -> Array:
    try:
        return _array(value, dtype)
    except _UnfitError:
        _explain(value, dtype, _dense_shape(value))
        raise


def _dense_shape(value: Any) -> list[int]:
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _array(value: Any, dtype: str) -> Array:
    """Convert a value nested to any depth; the loops over elements all run in C.

    Raises:
        _UnfitError: ragged nesting, or an element that does not fit the type.
    """
    shape = _dense_shape(value)
    flat = [value]
    for size in shape:
        if set(map(type, flat)) != {list} or set(map(len, flat)) != {size}:
            raise _UnfitError
        flat = list(chain.from_iterable(flat))
    return _elements(flat, dtype).reshape(shape)


def _elements(flat: list[Any], dtype: str) -> Array:
    types = set(map(type, flat))
    if dtype in _FLOATS and types <= {int, float}:
        return _float_elements(flat, dtype)
    if dtype in _INTEGERS and types <= {int}:
        try:
            return np.array(flat, _INTEGERS[dtype])
        except OverflowError as error:
            raise _UnfitError from error
    if dtype == "bool" and types <= {bool}:
        return np.array(flat, bool)
    if dtype == "string" and types <= {str, dict}:
        array = np.empty(len(flat), object)
        array[:] = [_string_element(item) for item in flat]
        return array
    raise _UnfitError


def _float_elements(flat: list[Any], dtype: str) -> Array:
    try:
        array: Array = np.array(flat, np.float64)
    except OverflowError as error:
        raise _UnfitError from error
    finite = np.abs(array[np.isfinite(array)])
    if finite.size and finite.max() > _EXACT_INTEGER[dtype]:
        if any(type(item) is int and abs(item) > _EXACT_INTEGER[dtype] for item in flat):
            raise _UnfitError
        if finite.max() > np.finfo(_FLOATS[dtype]).max:
            raise _UnfitError
    return array.astype(_FLOATS[dtype])


def _string_element(item: str | dict[str, Any]) -> bytes:
    if isinstance(item, dict):
        return decode_base64(item)
    try:
        return item.encode()
    except UnicodeEncodeError as error:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from error


def _explain(value: Any, dtype: str, shape: Sequence[int], level: int = 0) -> None:
    """Raise the error the real server gives for the first bad element, if there is one."""
    rank = len(shape)
    if isinstance(value, list):
        if level >= rank:
            raise invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
        if len(value) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(value)} at level: {level} "
                f"expected size: {shape[level]}"
            )
        for item in value:
            _explain(item, dtype, shape, level + 1)
        return
    if level != rank:
        raise invalid(
            f"JSON Value: {echo(value)} found at incorrect level: {level + 1} "
            f"in the JSON DOM. Expected at level: {rank}"
        )
    try:
        _elements([value], dtype)
    except _UnfitError:
        raise _leaf_error(value, dtype) from None


def _leaf_error(value: Any, dtype: str) -> ServingError:
    if dtype not in _FLOATS and dtype not in _INTEGERS and dtype not in ("bool", "string"):
        return ServingError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {echo(value)} to type: {dtype}"
        )
    if dtype in _FLOATS and json_type(value) == "Number":
        return invalid(
            f"Cannot convert JSON value: {echo(value)} to {dtype} without loss of precision."
        )
    return invalid(
        f"JSON Value: {echo(value)} Type: {json_type(value)} is not of expected type: {dtype}"
    )
