from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from local.health import free_ports
from pipelines.config import Settings
from pipelines.errors import ServiceError
from pipelines.online.connection import redis_address
from pipelines.online.layout import TableMeta, bucket_of
from pipelines.online.store import OnlineStore


@pytest.fixture
def online(settings_for: Callable[..., Settings]) -> OnlineStore:
    return OnlineStore.connect(settings_for(model_server=False))


def batch(meta: TableMeta, rows: dict[str, list[int]]) -> pa.RecordBatch:
    ordered = sorted((bucket_of(i, meta.buckets), i, value) for i, value in rows.items())
    return pa.RecordBatch.from_arrays(
        [
            pa.array([b for b, _, _ in ordered], pa.int32()),
            pa.array([i for _, i, _ in ordered]),
            pa.array([v for _, _, v in ordered], pa.list_(pa.int64())),
        ],
        ["bucket", "id", "value"],
    )


def test_tables_round_trip_and_are_unlinked_by_enumeration(online: OnlineStore) -> None:
    rows = {str(i): [i, -i, 2**62 + i] for i in range(-500, 500)}
    meta = TableMeta(name="lists", kind="ids", buckets=32, rows=len(rows))
    for _ in range(2):  # Writing again changes nothing.
        assert online.write_batch("recs", 5, meta, batch(meta, rows)) == len(rows)
    assert online.count_rows("recs", 5, meta) == len(rows)
    online.write_meta("recs", 5, [meta])

    assert online.table_meta("recs", 5) == {"lists": meta}
    assert online.read("recs", 5, meta, ["7", "nobody", "-3"]) == {"7": rows["7"], "-3": rows["-3"]}
    assert online.memory_of("recs", 5, meta) > 0

    online.unlink_tables("recs", 5)
    assert online.table_meta("recs", 5) == {}
    assert online.count_rows("recs", 5, meta) == 0


def test_buckets_are_listpacks(online: OnlineStore) -> None:
    rows = {str(i): list(range(50)) for i in range(32)}
    meta = TableMeta(name="lists", kind="ids", buckets=1, rows=32)
    online.write_batch("recs", 1, meta, batch(meta, rows))
    encoding = online._redis.object("encoding", online.keys("recs").bucket("lists", 1, 0))
    assert encoding in (b"ziplist", b"listpack")


def test_an_unreachable_redis_is_named_without_its_password() -> None:
    (free_port,) = free_ports(1)
    online = OnlineStore(f"redis://:secret@127.0.0.1:{free_port}/0", "test")
    with pytest.raises(ServiceError, match=f"Redis at 127.0.0.1:{free_port}: ") as caught:
        online.ping()
    assert "secret" not in str(caught.value)


def test_a_wrong_password_is_an_error_of_ours(settings_for: Callable[..., Settings]) -> None:
    url = settings_for(model_server=False).redis_url.get_secret_value().replace("password", "wrong")
    with pytest.raises(ServiceError, match=redis_address(url)):
        OnlineStore(url, "test").ping()
