"""Rows through RESP into a real Redis and back: any ids, any sizes, every error seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.config import Settings
from pipelines.errors import ServiceError
from pipelines.online import bulk
from pipelines.online.buckets import Bucket, pack_buckets, sum_bucket, sum_buckets
from pipelines.online.layout import TableMeta, bucket_of
from pipelines.online.store import OnlineStore
from tests.services import RedisServer

ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
sizes = st.one_of(st.integers(0, 64), st.integers(65, 5000), st.integers(5001, 100_000))


@pytest.fixture
def online(settings_for: Callable[..., Settings]) -> Iterator[OnlineStore]:
    store = OnlineStore.connect(settings_for(model_server=False))
    yield store
    store.close()


def texts(rows: dict[str, str], buckets: int) -> tuple[TableMeta, pa.RecordBatch]:
    ordered = sorted((bucket_of(i, buckets), i, value) for i, value in rows.items())
    columns = zip(*ordered, strict=True) if ordered else ((), (), ())
    types = (pa.int32(), pa.string(), pa.string())
    arrays = [pa.array(list(c), t) for c, t in zip(columns, types, strict=True)]
    meta = TableMeta(name="t", kind="text", buckets=buckets, rows=len(rows))
    return meta, pa.RecordBatch.from_arrays(arrays, ["bucket", "id", "value"])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(ids, sizes, min_size=1, max_size=40), st.integers(1, 40), st.booleans())
def test_any_rows_come_back(
    online: OnlineStore, rows: dict[str, int], buckets: int, replace: bool
) -> None:
    online._redis.flushall()
    contents = {i: (i + "é\r\n$5")[:5] * (size // 5) for i, size in rows.items()}
    meta, batch = texts(contents, buckets)
    assert online.write_batch("u", 1, meta, batch, replace=replace) == len(rows)
    assert online.count_rows("u", 1, meta) == len(rows)
    assert online.read("u", 1, meta, list(rows)) == contents
    stored = list(online.read_buckets("u", 1, meta, range(buckets)))
    assert {b.number for b in stored} == set(range(buckets))
    full = (bucket for bucket in stored if bucket.ids)
    assert sum_buckets(full) == sum_buckets(pack_buckets(batch, meta))


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_protocols_read_buckets(
    redis_server: RedisServer, redis_client: redis.Redis, protocol: int
) -> None:
    store = OnlineStore(f"{redis_server.url}?protocol={protocol}", "p")
    meta, batch = texts({"a": "1", "b": "", "": "3"}, 1)
    store.write_batch("u", 1, meta, batch, replace=True)
    (bucket,) = store.read_buckets("u", 1, meta, [0])
    assert sum_bucket(bucket) == sum_buckets(pack_buckets(batch, meta))
    store.close()


def test_replacing_leaves_only_the_new_rows(online: OnlineStore) -> None:
    meta, batch = texts({str(i): "old" for i in range(50)}, 4)
    online.write_batch("u", 1, meta, batch)
    _, batch = texts({str(i): "new" for i in range(25, 60)}, 4)
    online.write_batch("u", 1, meta, batch, replace=True)
    assert online.count_rows("u", 1, meta) == 35


def test_a_reader_sees_no_gap_while_buckets_are_replaced(online: OnlineStore) -> None:
    meta, batch = texts({str(i): "x" * 100 for i in range(64)}, 2)
    online.write_batch("u", 1, meta, batch)
    done = threading.Event()

    def rewrite() -> None:
        for _ in range(200):
            online.write_batch("u", 1, meta, batch, replace=True)
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    while not done.is_set():
        assert len(online.read("u", 1, meta, ["1", "2", "3"])) == 3
    writer.join()


def test_more_than_all_buffers_hold_in_both_directions(online: OnlineStore) -> None:
    meta, batch = texts({str(i): "x" * 50_000 for i in range(1000)}, 100)
    online.write_batch("u", 1, meta, batch)
    total = sum_buckets(online.read_buckets("u", 1, meta, range(100)))
    assert total == sum_buckets(pack_buckets(batch, meta))
    commands = [bulk.command(b"HLEN", b"nothing")] * 50_000
    assert bulk.execute(online._redis, commands) == [0] * 50_000


@pytest.mark.parametrize("replace", [False, True])
def test_memory_that_runs_out_half_way_is_an_error(
    online: OnlineStore, redis_client: redis.Redis, replace: bool
) -> None:
    meta, batch = texts({str(i): "x" * 2000 for i in range(20_000)}, 600)
    before = redis_client.config_get("maxmemory")["maxmemory"] or "0"
    redis_client.config_set("maxmemory", redis_client.info("memory")["used_memory"] + (8 << 20))
    try:
        with pytest.raises(ServiceError, match=r"Redis at 127\.0\.0\.1:\d+: .*maxmemory"):
            online.write_batch("u", 1, meta, batch, replace=replace)
        assert 0 < online.count_rows("u", 1, meta) < 20_000
    finally:
        redis_client.config_set("maxmemory", before)
    assert online.read("u", 1, meta, ["nobody"]) == {}, "the connection holds old replies"
    online.write_batch("u", 1, meta, batch, replace=replace)
    assert online.count_rows("u", 1, meta) == 20_000


@pytest.mark.parametrize("replace", [False, True])
def test_any_command_that_is_refused_is_an_error(online: OnlineStore, replace: bool) -> None:
    meta, batch = texts({str(i): "x" for i in range(2000)}, 64)
    key = online.keys("u").bucket("t", 1, 33)
    online._redis.set(key, "not a hash")
    if replace:  # DEL makes room: nothing is refused.
        online.write_batch("u", 1, meta, batch, replace=True)
        assert online.count_rows("u", 1, meta) == 2000
        return
    with pytest.raises(ServiceError, match="wrong kind of value"):
        online.write_batch("u", 1, meta, batch)
    online.ping()


def test_an_error_inside_a_transaction_is_seen(redis_client: redis.Redis) -> None:
    redis_client.set("text", "not a hash")
    inside = bulk.set_bucket(b"text", Bucket(0, [b"a"], [b"1"]))
    multi, done = bulk.command(b"MULTI"), bulk.command(b"EXEC")
    with pytest.raises(redis.ResponseError, match="wrong kind of value"):
        bulk.execute(redis_client, [multi, inside, done])
    assert redis_client.ping()


def test_a_connection_that_was_closed_meanwhile_is_made_anew(
    online: OnlineStore, redis_server: RedisServer
) -> None:
    meta, batch = texts({str(i): "x" * 100 for i in range(5000)}, 150)
    online.ping()
    killer = redis.Redis.from_url(redis_server.url)
    attempts: list[Any] = []

    def commands() -> Iterator[bulk.Encoded]:
        attempts.append(None)
        for bucket in pack_buckets(batch, meta):
            if len(attempts) == 1 and bucket.number == 100:
                killer.client_kill_filter(_type="normal", skipme=True)
            yield bulk.set_bucket(online._bucket_keys("u", 1, meta)(bucket.number), bucket)

    bulk.stream(online._redis, commands)
    assert len(attempts) == 2
    assert online.count_rows("u", 1, meta) == 5000
