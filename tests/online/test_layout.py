from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import IdType
from pipelines.models.base import TableKind
from pipelines.online.layout import (
    Keys,
    TableMeta,
    bucket_count,
    bucket_of,
    pack_column,
    pack_ids,
    pack_vector,
    unpack,
    unpack_ids,
    within_float16,
)

int64s = st.integers(-(2**63), 2**63 - 1)
finite_float16 = st.floats(-60000, 60000, width=32)


def table(kind: TableKind, id_type: IdType = "int64", **more: object) -> TableMeta:
    return TableMeta.model_validate(
        {"name": "t", "kind": kind, "buckets": 4, "rows": 1, "id_type": id_type, **more}
    )


@given(st.lists(int64s, max_size=100))
def test_int64_ids_round_trip_at_8_bytes_each(ids: list[int]) -> None:
    packed = pack_ids(ids, "int64")
    assert len(packed) == 8 * len(ids)
    assert unpack_ids(packed, "int64") == ids


@given(st.lists(st.text(max_size=300), max_size=50))
def test_string_ids_round_trip(ids: list[str]) -> None:
    ids = [text.encode(errors="ignore").decode() for text in ids]
    assert unpack_ids(pack_ids(ids, "string"), "string") == ids


def test_an_id_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="70000 bytes"):
        pack_ids(["x" * 70_000], "string")


def test_packed_bytes_are_as_documented() -> None:
    assert pack_ids([1, -1], "int64") == b"\x01" + b"\x00" * 7 + b"\xff" * 8
    assert pack_ids(["a", "é"], "string") == b"\x01\x00a\x02\x00\xc3\xa9"
    assert pack_vector([1.0, -2.0], table("vector", dimension=2)) == b"\x00\x3c\x00\xc0"


@given(st.lists(finite_float16, min_size=1, max_size=64))
def test_float16_vectors_keep_the_stated_tolerance(vector: list[float]) -> None:
    meta = table("vector", dimension=len(vector))
    packed = pack_vector(vector, meta)
    assert len(packed) == 2 * len(vector)
    stored = np.asarray(unpack(packed, meta))
    assert within_float16(stored, np.asarray(vector))


def test_a_vector_that_is_further_off_is_noticed() -> None:
    original = np.array([0.5, 1.0])
    assert within_float16(original * (1 + 2.0**-12), original)
    assert not within_float16(original * (1 + 2.0**-10), original)
    assert not within_float16(np.array([np.nan, 1.0]), original)


@given(st.lists(st.lists(int64s, max_size=8), min_size=1, max_size=20), st.data())
def test_a_column_packs_like_its_values_also_when_sliced(
    rows: list[list[int]], data: st.DataObject
) -> None:
    meta = table("ids")
    column = pa.array(rows, pa.list_(pa.int64()))
    start = data.draw(st.integers(0, len(rows) - 1))
    assert pack_column(column[start:], meta) == [pack_ids(r, "int64") for r in rows[start:]]


@given(st.lists(st.lists(finite_float16, min_size=3, max_size=3), min_size=1, max_size=20))
def test_a_vector_column_packs_like_its_vectors(rows: list[list[float]]) -> None:
    meta = table("vector", dimension=3)
    column = pa.array(rows, pa.list_(pa.float32()))
    assert pack_column(column, meta) == [pack_vector(row, meta) for row in rows]


def test_text_and_string_columns() -> None:
    assert pack_column(pa.array(["é", ""]), table("text")) == ["é".encode(), b""]
    strings = pa.array([["a"], []], pa.list_(pa.string()))
    assert pack_column(strings, table("ids", "string")) == [b"\x01\x00a", b""]


@given(st.text(min_size=1), st.integers(1, 10_000))
def test_buckets_are_in_range(entity_id: str, buckets: int) -> None:
    entity_id = entity_id.encode(errors="ignore").decode()
    assert 0 <= bucket_of(entity_id, buckets) < buckets


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [(0, 32, 1), (1, 32, 1), (32, 32, 1), (33, 32, 2), (1000, 10, 100)],
)
def test_bucket_count(rows: int, size: int, expected: int) -> None:
    assert bucket_count(rows, size) == expected


def test_keys_are_as_documented() -> None:
    keys = Keys("ferry", "recs")
    assert keys.live == "ferry:recs:live"
    assert keys.meta(7) == "ferry:recs:meta:7"
    assert list(keys.buckets(table("text"), 7)) == [f"ferry:recs:t:7:{b}" for b in range(4)]
