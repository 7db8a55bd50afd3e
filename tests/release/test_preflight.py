"""The memory check: its rules, and its estimate beside what a real Redis says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import Settings
from pipelines.models.base import TableKind
from pipelines.online.layout import TableMeta
from pipelines.online.store import OnlineStore
from pipelines.release.preflight import (
    Encoding,
    estimate,
    judge,
    round_jemalloc,
    round_libc,
)
from tests.release.sealed import describe, rows_of

MB = 1_000_000
FULL: dict[str, Any] = {"maxmemory": 100 * MB, "used_memory": 40 * MB}


@pytest.mark.parametrize(
    ("needed", "staged", "memory", "said"),
    [
        (10 * MB, 0, FULL, "10.0 MB needed, 55.0 MB free of maxmemory 100.0 MB (reserve 5%)"),
        (55 * MB, 0, FULL, "55.0 MB needed, 55.0 MB free"),
        (90 * MB, 40 * MB, FULL, "50.0 MB needed beside 40.0 MB already staged, 55.0 MB free"),
        (10 * MB, 20 * MB, FULL, "0 bytes needed beside 20.0 MB already staged"),
        (900 * MB, 0, {**FULL, "maxmemory": 0}, "no maxmemory: not limited"),
        (900 * MB, 0, {"used_memory": 1}, "does not say how much it has: not checked"),
        (900 * MB, 0, {}, "does not say how much it has: not checked"),
        (0, 0, {**FULL, "used_memory": 200 * MB}, "0 bytes needed, 0 bytes free"),
    ],
)
def test_what_fits(needed: int, staged: int, memory: dict[str, Any], said: str) -> None:
    gate = judge(needed, staged, memory, 0.05, "redis:6379")
    assert said in gate.reason
    assert gate.verdict == ("not_compared" if "not checked" in said else "passed")


@pytest.mark.parametrize(
    ("needed", "staged", "memory"),
    [
        (55 * MB + 1, 0, FULL),
        (100 * MB, 40 * MB, FULL),
        (1, 0, {**FULL, "used_memory": 200 * MB}),
    ],
)
def test_what_does_not_fit(needed: int, staged: int, memory: dict[str, Any]) -> None:
    gate = judge(needed, staged, memory, 0.05, "redis:6379")
    assert gate.verdict == "refused"
    assert re.search(
        r"^Redis at redis:6379: .* needed.* free of maxmemory "
        r"100\.0 MB \(reserve 5%\): .*'ferry retention' or raise maxmemory$",
        gate.reason,
    )
    assert (gate.value, gate.baseline) == (needed - staged, 100 * MB)


sizes = st.integers(0, 2**40)


@given(sizes, sizes, st.integers(1, 2**40), sizes, st.floats(0, 0.99))
def test_it_passes_exactly_if_it_fits(
    needed: int, staged: int, limit: int, used: int, reserve: float
) -> None:
    memory = {"maxmemory": limit, "used_memory": used}
    fits = max(0, needed - staged) <= max(0, int(limit * (1 - reserve)) - used)
    assert judge(needed, staged, memory, reserve, "a").verdict == ("passed" if fits else "refused")


@given(st.integers(0, 2**30))
def test_allocators_round_up_a_little(size: int) -> None:
    assert size <= round_libc(size) <= size + 24
    assert size <= round_jemalloc(size) <= max(size + 16, size * 1.25)


@given(
    st.integers(1, 10**7),
    st.integers(1, 512),
    st.integers(1, 10_000),
    st.sampled_from([Encoding(0, 0), Encoding(512, 8192)]),
)
def test_more_rows_or_bytes_never_need_less(
    rows: int, size: int, row_bytes: int, encoding: Encoding
) -> None:
    def needed(rows: int, row_bytes: int) -> int:
        meta = TableMeta(
            name="t",
            kind="text",
            buckets=max(1, rows // size),
            rows=rows,
            payload_bytes=rows * row_bytes,
            longest=row_bytes,
        )
        return estimate(meta, 30, encoding, round_jemalloc)

    assert needed(rows, row_bytes) > rows * row_bytes
    assert needed(rows, row_bytes + 64) >= needed(rows, row_bytes)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (None, Encoding(0, 0)),
        ({}, Encoding(0, 0)),
        ({"hash-max-ziplist-entries": 512, "hash-max-ziplist-value": 64}, Encoding(512, 64)),
        ({"hash-max-listpack-entries": 128, "hash-max-listpack-value": 9}, Encoding(128, 9)),
    ],
)
def test_the_settings_have_two_names(limits: dict[str, int] | None, expected: Encoding) -> None:
    assert Encoding.of(limits) == expected


TABLES: list[tuple[str, TableKind, dict[str, Any]]] = [
    ("lists", "ids", {str(10**6 + u): list(range(u, u + 50)) for u in range(4000)}),
    ("short lists", "ids", {f"user-{u}": list(range(1 + u % 20)) for u in range(4000)}),
    ("vectors of 32", "vector", {str(u): [0.1] * 32 for u in range(4000)}),
    ("vectors of 128", "vector", {f"item-{u}": [0.1] * 128 for u in range(4000)}),
    ("titles", "text", {str(u): f"The title of {u}" * (1 + u % 5) for u in range(4000)}),
    ("long texts", "text", {str(u): "x" * 5000 for u in range(500)}),
    ("one bucket", "text", {str(u): "x" * 500 for u in range(32)}),
    ("one row", "ids", {"all": list(range(50))}),
]


@pytest.fixture
def online(settings_for: Callable[..., Settings]) -> Iterator[OnlineStore]:
    store = OnlineStore.connect(settings_for(model_server=False))
    yield store
    store.close()


@pytest.mark.parametrize("value_limit", [8192, 32])
@pytest.mark.parametrize(("name", "kind", "rows"), TABLES, ids=[name for name, _, _ in TABLES])
def test_the_estimate_is_at_most_15_percent_above_what_redis_says(
    online: OnlineStore,
    redis_client: redis.Redis,
    name: str,
    kind: TableKind,
    rows: dict[str, Any],
    value_limit: int,
) -> None:
    meta = describe(name.replace(" ", "_"), kind, rows)
    redis_client.config_set("hash-max-ziplist-value", value_limit)
    try:
        encoding = Encoding.of(online.hash_limits())
        online.write_batch("recs", 202603010001, meta, rows_of(meta, rows))
    finally:
        redis_client.config_set("hash-max-ziplist-value", 8192)
    real = online.memory_of("recs", 202603010001, meta)
    key = online.keys("recs").bucket(meta.name, 202603010001, meta.buckets)
    needed = estimate(meta, len(key), encoding, round_libc)
    assert real <= needed <= 1.15 * real


def test_where_config_is_forbidden_the_larger_encoding_is_assumed(
    redis_client: redis.Redis, redis_server: Any
) -> None:
    redis_client.acl_setuser(
        "reader",
        enabled=True,
        passwords=["+pw"],
        categories=["+@all"],
        commands=["-config"],
        keys=["*"],
    )
    store = OnlineStore(f"redis://reader:pw@127.0.0.1:{redis_server.port}/0", "p")
    assert store.hash_limits() is None
    assert store.memory_info()["used_memory"] > 0
    store.close()
    redis_client.acl_deluser("reader")


def test_few_rows_may_get_chunks_that_are_a_little_larger() -> None:
    """As Redis has said of this table: each value had been given a chunk of 16 bytes more."""
    meta = describe("one_bucket", "text", {str(u): "x" * 500 for u in range(32)})
    key = "test-1:{recs}:t:one_bucket:202603010001:0"
    assert estimate(meta, len(key), Encoding(512, 32), round_libc) >= 18_816
