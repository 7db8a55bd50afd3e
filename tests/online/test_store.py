from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from local.health import free_ports
from pipelines.config import Settings
from pipelines.errors import ReleaseError, ServiceError
from pipelines.online.layout import TableMeta, bucket_of
from pipelines.online.store import OnlineStore, redis_address


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


def test_the_pointer_moves_only_forward(online: OnlineStore) -> None:
    assert online.pointer("recs") is None
    assert online.switch("recs", 10, expected=None)
    first = online.pointer("recs")
    assert first is not None
    assert (first.version, first.previous) == (10, None)

    assert not online.switch("recs", 9, expected=first), "an older version went live"
    assert online.switch("recs", 10, expected=first), "the same switch again is no error"
    assert online.switch("recs", 11, expected=first)
    second = online.pointer("recs")
    assert second is not None
    assert (second.version, second.previous) == (11, 10)

    assert not online.switch("recs", 12, expected=first), "the pointer had moved meanwhile"
    assert online.switch("recs", 10, expected=second, allow_backward=True)
    assert online.pointer("recs").version == 10  # type: ignore[union-attr]


def test_putting_back_restores_the_whole_pointer_or_nothing(online: OnlineStore) -> None:
    online.switch("recs", 1, expected=None)
    online.switch("recs", 2, expected=online.pointer("recs"))
    former = online.pointer("recs")
    online.switch("recs", 3, expected=former)

    assert not online.put_back("recs", 4, former)
    assert online.pointer("recs").version == 3  # type: ignore[union-attr]
    assert online.put_back("recs", 3, former)
    assert online.pointer("recs") == former
    assert online.put_back("recs", 2, None)
    assert online.pointer("recs") is None


def test_versions_compare_as_numbers(online: OnlineStore) -> None:
    online.switch("recs", 9, expected=None)
    assert online.switch("recs", 10, expected=online.pointer("recs"))


def test_since_is_now(online: OnlineStore) -> None:
    online.switch("recs", 1, expected=None)
    pointer = online.pointer("recs")
    assert pointer is not None
    assert abs((datetime.now(UTC) - pointer.since).total_seconds()) < 60


def test_a_lock_has_one_holder_who_is_named(online: OnlineStore) -> None:
    with (
        online.lock("things", "run one", 60),
        pytest.raises(ReleaseError, match="things is being changed by run one"),
        online.lock("things", "run two", 60),
    ):
        pass
    with online.lock("things", "run two", 60):
        pass


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
