"""Answers as JSON text, by the rules of ``util/json_tensor.cc``."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from local.model_server.errors import invalid
from local.model_server.json_tensor import Array

_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def predictions(outputs: Mapping[str, Array], *, row: bool) -> str:
    """Return the answer to a predict request in the form it was asked in.

    Args:
        outputs: arrays by output name; in row form the first axis is the batch.
        row: answer ``{"predictions": [one item per instance]}``, else ``{"outputs": …}``.

    Raises:
        ServingError: INVALID_ARGUMENT when row form cannot express the outputs.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if not row:
        texts = {name: _nested(name, array) for name, array in outputs.items()}
        value = _named(texts) if len(texts) > 1 else next(iter(texts.values()))
        return f'{{"outputs": {value}}}'
    _check_batch(outputs)
    columns = {name: _rows(name, array) for name, array in outputs.items()}
    items: Iterable[str] = next(iter(columns.values()))
    if len(columns) > 1:
        names = list(columns)
        items = (
            _named(dict(zip(names, texts, strict=True)))
            for texts in zip(*columns.values(), strict=True)
        )
    return f'{{"predictions": [{", ".join(items)}]}}'


def numbers(array: Array) -> list[str]:
    """Return each element of a floating-point array as short as ``%.6g`` if that is exact.

    Else it has all its digits (9 or 17). Whole numbers keep a ``.0``, so that a client's list
    does not mix integers with decimals.
    """
    digits = 17 if array.dtype == np.float64 else 9
    flat = array.ravel()
    values = flat.tolist()
    texts = [f"{value:.6g}" for value in values]
    if values:
        inexact = np.array(texts).astype(flat.dtype) != flat
        for position in np.flatnonzero(inexact).tolist():  # NaN is among these
            texts[position] = f"{values[position]:.{digits}g}"
    return [_NOT_FINITE.get(text) or _decimal(text) for text in texts]


def string(value: bytes) -> str:
    """Return bytes as a JSON string; what is not UTF-8 goes out unchanged, as the real one does."""
    return json.dumps(value.decode("utf-8", "surrogateescape"), ensure_ascii=False)


def encode(text: str) -> bytes:
    """Return the body of an answer (the counterpart of :func:`string`)."""
    return text.encode("utf-8", "surrogateescape")


def _decimal(text: str) -> str:
    return text if "." in text or "e" in text else f"{text}.0"


def _check_batch(outputs: Mapping[str, Array]) -> None:
    batch: int | None = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if batch is not None and array.shape[0] != batch:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} "
                f"expecting: {batch}"
            )
        batch = array.shape[0]


def _named(texts: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in texts.items()) + "}"


def _rows(name: str, array: Array) -> list[str]:
    """Return one text for each item of the first axis."""
    tokens = _tokens(name, array)
    for size in reversed(array.shape[1:]):
        tokens = _group(tokens, size, len(tokens) // size if size else 0)
    # An inner axis of length 0 leaves no tokens to group; every row is then the same empty list.
    return tokens if len(tokens) == array.shape[0] else [_empty(array.shape[1:])] * array.shape[0]


def _nested(name: str, array: Array) -> str:
    if array.ndim == 0:
        return _tokens(name, array)[0]
    return f"[{', '.join(_rows(name, array))}]"


def _group(tokens: Sequence[str], size: int, count: int) -> list[str]:
    return [f"[{', '.join(tokens[i * size : (i + 1) * size])}]" for i in range(count)]


def _empty(shape: Sequence[int]) -> str:
    if not shape:
        return ""
    return f"[{', '.join([_empty(shape[1:])] * shape[0])}]"


def _tokens(name: str, array: Array) -> list[str]:
    """Return the JSON text of every element in row-major order."""
    kind = array.dtype.kind
    if kind == "f":
        return numbers(array)
    values = array.ravel().tolist()
    if kind == "O":
        if name.endswith("_bytes"):
            return [f'{{"b64": "{base64.b64encode(item).decode()}"}}' for item in values]
        return [string(item) for item in values]
    if kind in "iu":
        return [str(item) for item in values]
    if kind == "b":
        return ["true" if item else "false" for item in values]
    raise invalid(f"Failed to write JSON value for tensor type: {array.dtype.name}")
