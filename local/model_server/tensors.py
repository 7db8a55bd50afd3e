"""Element types by their TensorFlow names, and NumPy arrays as ``TensorProto``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DataType

from local.model_server.errors import invalid

Array = NDArray[Any]

# The typed field of TensorProto for each element type, as `Tensor::AsProtoField` fills it.
# Clients read these fields directly (`outputs["y"].float_val`), so `tensor_content` will not do.
_FIELDS = {
    "float": "float_val",
    "double": "double_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "string": "string_val",
}


def dtype_name(dtype: int) -> str:
    """Return the name TensorFlow's messages use for a ``DataType``: ``float``, ``string`` …."""
    return str(DataType.Name(dtype)).removeprefix("DT_").lower()


def from_proto(name: str, proto: TensorProto) -> Array:
    """Return the array of ``proto``; strings become an object array of ``bytes``.

    Raises:
        ServingError: INVALID_ARGUMENT when values and shape do not fit.
    """
    try:
        return np.asarray(tf.make_ndarray(proto))
    except (TypeError, ValueError) as error:
        raise invalid(f"tensor parsing error: {name}") from error


def to_proto(array: Array, dtype: int) -> TensorProto:
    """Return ``array`` as a proto of the type the signature declares."""
    field = _FIELDS.get(dtype_name(dtype))
    if field is None:  # half, complex …: rare, and only `make_tensor_proto` knows their encoding
        return tf.make_tensor_proto(array)
    proto = TensorProto(dtype=dtype)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, field).extend(array.ravel().tolist())
    return proto


def check_dtypes(arrays: Mapping[str, Array], dtypes: Mapping[str, int]) -> None:
    """Refuse an input whose element type is not the signature's.

    Raises:
        ServingError: INVALID_ARGUMENT, in the words of a TensorFlow session.
    """
    for position, (name, array) in enumerate(sorted(arrays.items())):
        expected = tf.as_dtype(dtypes[name])
        if array.dtype != expected.as_numpy_dtype:
            given = dtype_name(tf.as_dtype(array.dtype).as_datatype_enum)
            raise invalid(
                f"Expects arg[{position}] to be {dtype_name(dtypes[name])} but {given} is provided"
            )
