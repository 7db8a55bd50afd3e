"""The Redis layout: keys, buckets and packed values. The only place that knows it.

``<prefix>:<unit>:<table>:<version>:<bucket>`` is a hash; its fields are entity ids as UTF-8 text
and its values packed bytes. Redis stores a small hash as one listpack, which is what makes this
compact. An entity's bucket is ``crc32(id) mod buckets``. ``<prefix>:<unit>:meta:<version>`` is a
hash from table name to its description in JSON, so that a reader in any language can find its way
and a version's keys can be enumerated without SCAN. ``<prefix>:<unit>:live`` names the version
that is live.

Values, all little-endian:

* ``ids`` of int64: 8 bytes each; of strings: a uint16 length in bytes, then UTF-8, for each
* ``vector``: float16 or float32 components
* ``text``: UTF-8
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipelines.config import IdType
from pipelines.models.base import TableKind

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

ItemId = int | str
Value = list[int] | list[str] | list[float] | str

MAX_ID_BYTES = 0xFFFF

#: float16 has 11 significant bits: rounding to it changes a value by at most this share of it...
FLOAT16_RELATIVE_ERROR = 2.0**-11
#: ...and by at most this much where the value is too small to be a normal float16.
FLOAT16_ABSOLUTE_ERROR = 2.0**-25


class TableMeta(BaseModel):
    """How one table of one version is laid out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: TableKind
    buckets: int
    rows: int
    id_type: IdType = "int64"
    dtype: Literal["float16", "float32"] = "float16"
    dimension: int = 0
    #: Bytes of all ids and packed values; 0 where it was not measured.
    payload_bytes: int = 0
    #: The longest id or packed value in bytes; 0 where it was not measured.
    longest: int = 0
    #: Of all rows, in hex (see :mod:`pipelines.online.buckets`); None for tables made before it.
    checksum: str | None = None


@dataclass(frozen=True)
class Keys:
    """The names of one unit's keys."""

    prefix: str
    unit: str

    @property
    def live(self) -> str:
        """The pointer."""
        return f"{self.prefix}:{self.unit}:live"

    def meta(self, version: int) -> str:
        """The descriptions of a version's tables."""
        return f"{self.prefix}:{self.unit}:meta:{version}"

    def bucket(self, table: str, version: int, bucket: int) -> str:
        """One bucket of one table."""
        return f"{self.prefix}:{self.unit}:{table}:{version}:{bucket}"

    def buckets(self, meta: TableMeta, version: int) -> Iterator[str]:
        """Enumerate all buckets of a table."""
        return (self.bucket(meta.name, version, b) for b in range(meta.buckets))


def bucket_of(entity_id: str, buckets: int) -> int:
    """Return the bucket of an entity; Spark's ``crc32(id) % buckets`` is the same."""
    return zlib.crc32(entity_id.encode()) % buckets


def bucket_count(rows: int, bucket_size: int) -> int:
    """Return how many buckets hold `rows` entities at about `bucket_size` each."""
    return max(1, -(-rows // bucket_size))


def pack_ids(ids: Sequence[ItemId], id_type: IdType) -> bytes:
    """Pack item ids.

    Raises:
        ValueError: a string id is longer than 65,535 bytes.
    """
    if id_type == "int64":
        return np.asarray(ids, dtype="<i8").tobytes()
    return b"".join(_pack_id(str(text).encode()) for text in ids)


def _pack_id(encoded: bytes) -> bytes:
    if len(encoded) > MAX_ID_BYTES:
        raise ValueError(f"id of {len(encoded)} bytes is longer than {MAX_ID_BYTES}")
    return len(encoded).to_bytes(2, "little") + encoded


def unpack_ids(packed: bytes, id_type: IdType) -> list[int] | list[str]:
    """Unpack what :func:`pack_ids` packed."""
    if id_type == "int64":
        numbers: list[int] = np.frombuffer(packed, dtype="<i8").tolist()
        return numbers
    ids = []
    position = 0
    while position < len(packed):
        (length,) = struct.unpack_from("<H", packed, position)
        position += 2
        ids.append(packed[position : position + length].decode())
        position += length
    return ids


def _dtype(meta: TableMeta) -> str:
    return "<f2" if meta.dtype == "float16" else "<f4"


def pack_vector(vector: Sequence[float] | NDArray[np.float32], meta: TableMeta) -> bytes:
    """Pack a vector of ``meta.dimension`` components as ``meta.dtype``."""
    return np.asarray(vector, dtype=_dtype(meta)).tobytes()


def unpack_vector(packed: bytes, meta: TableMeta) -> NDArray[np.float32]:
    """Return the float32 vector of shape [dimension] that `packed` holds."""
    return np.frombuffer(packed, dtype=_dtype(meta)).astype(np.float32)


def unpack(packed: bytes, meta: TableMeta) -> Value:
    """Unpack one value of a table."""
    if meta.kind == "ids":
        return unpack_ids(packed, meta.id_type)
    if meta.kind == "vector":
        components: list[float] = unpack_vector(packed, meta).tolist()
        return components
    return packed.decode()


def utf8_column(texts: pa.Array) -> list[bytes]:
    """Return a column of strings without nulls as the UTF-8 bytes that Arrow already holds."""
    _, offsets_buffer, data = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    if data is None or not len(texts):
        return [b""] * len(texts)
    flat = data.slice(offsets[0], offsets[-1] - offsets[0]).to_pybytes()
    return _cut(flat, (offsets[1:] - offsets[0]).tolist())


def _cut(flat: bytes, ends: list[int]) -> list[bytes]:
    return [flat[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def pack_column(values: pa.Array, meta: TableMeta) -> list[bytes]:
    """Pack a column of values at once.

    `values` is list<int64>, list<string>, list<float> or string, without nulls, according to
    ``meta.kind``; one packed value for each row comes back.

    Raises:
        ValueError: a string id is longer than 65,535 bytes.
    """
    if meta.kind == "text":
        return utf8_column(values)
    # flatten() honours the slice of a record batch, where .values would not.
    ends = np.cumsum(values.value_lengths().to_numpy(zero_copy_only=False))
    if meta.kind == "ids" and meta.id_type == "string":
        packed = [_pack_id(text) for text in utf8_column(values.flatten())]
        starts = [0, *ends[:-1].tolist()]
        return [b"".join(packed[s:e]) for s, e in zip(starts, ends.tolist(), strict=True)]
    dtype = "<i8" if meta.kind == "ids" else _dtype(meta)
    flat = values.flatten().to_numpy(zero_copy_only=False).astype(dtype, copy=False).tobytes()
    return _cut(flat, (ends * np.dtype(dtype).itemsize).tolist())


def within_float16(stored: NDArray[np.float64], original: NDArray[np.float64]) -> bool:
    """Tell whether `stored` is `original` rounded to float16, and nowhere further off."""
    tolerance = np.maximum(np.abs(original) * FLOAT16_RELATIVE_ERROR, FLOAT16_ABSOLUTE_ERROR)
    return bool(np.all(np.abs(stored - original) <= tolerance * (1 + 1e-6)))
