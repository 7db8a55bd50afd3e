"""Whole buckets of a table: packed from Arrow rows, counted and summed up.

The checksum of a bucket is ``blake2b`` (8 bytes, little-endian) over its number as uint32 and its
rows sorted by the id's bytes, each as uint32 length, id, uint32 length, packed value. A table's
checksum is the sum of its buckets' modulo 2**64: it does not depend on the order in which rows
were written or buckets are read, and parts can be summed up by different processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.online.layout import TableMeta, pack_column, utf8_column

if TYPE_CHECKING:
    import pyarrow as pa

_MODULUS = 1 << 64


class Bucket(NamedTuple):
    """The rows of one bucket: ids as UTF-8 and packed values, in the same order."""

    number: int
    ids: list[bytes]
    values: list[bytes]


class TableSum(NamedTuple):
    """What a table, or a share of it, adds up to; shares of whole buckets can be added."""

    rows: int = 0
    #: Bytes of ids and packed values, without anything that Redis adds.
    payload_bytes: int = 0
    #: The longest packed value or id in bytes, which decides how Redis encodes its bucket.
    longest: int = 0
    checksum: int = 0

    def plus(self, other: TableSum) -> TableSum:
        """Return the sum of two shares."""
        return TableSum(
            self.rows + other.rows,
            self.payload_bytes + other.payload_bytes,
            max(self.longest, other.longest),
            (self.checksum + other.checksum) % _MODULUS,
        )

    @property
    def hex(self) -> str:
        """The checksum as 16 hexadecimal digits."""
        return f"{self.checksum:016x}"


def sum_bucket(bucket: Bucket) -> TableSum:
    """Return what one bucket adds up to; its rows may be in any order."""
    digest = hashlib.blake2b(bucket.number.to_bytes(4, "little"), digest_size=8)
    pieces: list[bytes] = []
    lengths: list[int] = []
    for entity_id, value in sorted(zip(bucket.ids, bucket.values, strict=True)):
        sizes = (len(entity_id), len(value))
        lengths += sizes
        pieces += (sizes[0].to_bytes(4, "little"), entity_id, sizes[1].to_bytes(4, "little"), value)
    digest.update(b"".join(pieces))
    return TableSum(
        len(bucket.ids),
        sum(lengths),
        max(lengths, default=0),
        int.from_bytes(digest.digest(), "little"),
    )


def sum_buckets(buckets: Iterable[Bucket]) -> TableSum:
    """Return what different whole buckets add up to."""
    total = TableSum()
    for bucket in buckets:
        total = total.plus(sum_bucket(bucket))
    return total


def pack_buckets(batch: pa.RecordBatch, meta: TableMeta) -> Iterator[Bucket]:
    """Yield the buckets of rows (``bucket`` int32, ``id`` string, ``value``), sorted by bucket."""
    if not batch.num_rows:
        return
    numbers = batch.column("bucket").to_numpy(zero_copy_only=False)
    ids = utf8_column(batch.column("id"))
    values = pack_column(batch.column("value"), meta)
    starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], batch.num_rows], strict=True):
        yield Bucket(int(numbers[start]), ids[start:end], values[start:end])


def whole_buckets(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cut batches of rows sorted by bucket anew, so that no bucket is spread over two of them."""
    import pyarrow as pa

    rest: pa.RecordBatch | None = None
    for read in batches:
        batch = pa.concat_batches([rest, read]) if rest is not None and rest.num_rows else read
        if not batch.num_rows:
            continue
        numbers = batch.column("bucket").to_numpy(zero_copy_only=False)
        last = int(np.searchsorted(numbers, numbers[-1], side="left"))
        if last:
            yield batch.slice(0, last)
        rest = batch.slice(last)
    if rest is not None and rest.num_rows:
        yield rest
