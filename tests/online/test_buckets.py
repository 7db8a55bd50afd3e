"""Buckets: their sums are independent of every order, and of how the rows were cut into batches."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.online.buckets import (
    Bucket,
    TableSum,
    pack_buckets,
    sum_bucket,
    sum_buckets,
    whole_buckets,
)
from pipelines.online.layout import TableMeta

META = TableMeta(name="t", kind="text", buckets=10, rows=0)
contents = st.dictionaries(st.binary(max_size=9), st.binary(max_size=300), min_size=1, max_size=9)
tables = st.dictionaries(st.integers(0, 2**31 - 1), contents, max_size=6)


def bucket(number: int, rows: dict[bytes, bytes]) -> Bucket:
    return Bucket(number, list(rows), list(rows.values()))


def test_the_checksum_is_as_documented() -> None:
    message = b"\x07\0\0\0" + b"\x01\0\0\0a\x02\0\0\0xy" + b"\x01\0\0\0b\0\0\0\0"
    expected = hashlib.blake2b(message, digest_size=8).digest()
    total = sum_bucket(bucket(7, {b"b": b"", b"a": b"xy"}))
    assert total == TableSum(2, 4, 2, int.from_bytes(expected, "little"))
    assert total.hex == expected[::-1].hex()


@given(tables, st.randoms(use_true_random=False))
def test_no_order_matters(table: dict[int, dict[bytes, bytes]], chance: random.Random) -> None:
    buckets = [bucket(number, rows) for number, rows in table.items()]
    shuffled = []
    for original in buckets:
        rows = list(zip(original.ids, original.values, strict=True))
        chance.shuffle(rows)
        shuffled.append(bucket(original.number, dict(rows)))
    chance.shuffle(shuffled)
    cut = chance.randint(0, len(buckets))
    total = sum_buckets(shuffled[:cut]).plus(sum_buckets(shuffled[cut:]))
    assert total == sum_buckets(buckets)
    assert total.rows == sum(map(len, table.values()))


@pytest.mark.parametrize(
    "other",
    [
        bucket(1, {b"a": b"1", b"b": b"3"}),
        bucket(2, {b"a": b"1", b"b": b"2"}),
        bucket(1, {b"a": b"1"}),
        bucket(1, {b"a": b"2", b"b": b"1"}),
        bucket(1, {b"a1": b"", b"b": b"2"}),
    ],
)
def test_every_difference_counts(other: Bucket) -> None:
    assert sum_bucket(other).checksum != sum_bucket(bucket(1, {b"a": b"1", b"b": b"2"})).checksum


@given(st.lists(st.integers(0, 9)), st.integers(1, 7))
def test_batches_are_cut_between_buckets(numbers: list[int], size: int) -> None:
    numbers.sort()
    ids = [f"é{i}" for i in range(len(numbers))]
    rows = pa.RecordBatch.from_arrays(
        [pa.array(numbers, pa.int32()), pa.array(ids, pa.string()), pa.array(ids, pa.string())],
        ["bucket", "id", "value"],
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, max(1, len(numbers)), size):
            yield rows.slice(start, size)

    cut = [list(pack_buckets(batch, META)) for batch in whole_buckets(batches())]
    together = [found for some in cut for found in some]
    assert together == list(pack_buckets(rows, META))
    assert [found.number for found in together] == sorted(set(numbers))
    assert [i.decode() for found in together for i in found.ids] == ids
