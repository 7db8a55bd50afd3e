from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.crc import key_slot

from pipelines.config import Settings
from pipelines.errors import ReleaseError
from pipelines.online import leases
from pipelines.online.leases import Lease, LeaseLostError
from pipelines.online.pointer import Pointer
from pipelines.online.store import OnlineStore

UNIT = "recs"
NOW = datetime(2026, 3, 1, 4, 5, 6, 789000, tzinfo=UTC)


@pytest.fixture
def online(settings_for: Callable[..., Settings]) -> Iterator[OnlineStore]:
    store = OnlineStore.connect(settings_for(model_server=False))
    yield store
    store.close()


@pytest.fixture
def lease(online: OnlineStore) -> Iterator[Lease]:
    with online.leases.hold(online.pointers.key(UNIT), "a test") as held:
        yield held


def target(version: int, epoch: int, previous: int | None = None) -> Pointer:
    return Pointer(version=version, previous=previous, replaced=previous, epoch=epoch, since=NOW)


def move(online: OnlineStore, lease: Lease, to: Pointer | None, **more: bool) -> None:
    seen = online.pointers.epoch(UNIT)
    epoch = to.epoch if to else seen + 1
    online.pointers.move(UNIT, lease, seen_epoch=seen, epoch=epoch, target=to, **more)


def test_a_move_is_read_back_whole(online: OnlineStore, lease: Lease) -> None:
    assert online.pointers.get(UNIT) is None
    assert online.pointers.epoch(UNIT) == 0
    for pointer in (target(10, 1), target(11, 2, previous=10)):
        move(online, lease, pointer)
        assert online.pointers.get(UNIT) == pointer


def test_nothing_can_be_live_again_and_the_epoch_stays(online: OnlineStore, lease: Lease) -> None:
    move(online, lease, target(10, 1))
    move(online, lease, None, allow_backward=True)
    assert online.pointers.get(UNIT) is None
    assert online.pointers.epoch(UNIT) == 2


def test_an_older_version_needs_leave(online: OnlineStore, lease: Lease) -> None:
    move(online, lease, target(10, 1))
    with pytest.raises(ReleaseError, match="only forward"):
        move(online, lease, target(9, 2))
    assert online.pointers.get(UNIT) == target(10, 1)
    move(online, lease, target(9, 2), allow_backward=True)
    assert online.pointers.get(UNIT) == target(9, 2)


def test_versions_compare_as_numbers(online: OnlineStore, lease: Lease) -> None:
    move(online, lease, target(9, 1))
    move(online, lease, target(10, 2))
    assert online.pointers.get(UNIT) == target(10, 2)


def test_who_saw_an_older_pointer_moves_nothing(online: OnlineStore, lease: Lease) -> None:
    move(online, lease, target(10, 1))
    # There and back again: the version is the same, the pointer is not.
    move(online, lease, target(11, 2))
    move(online, lease, target(10, 3), allow_backward=True)
    with pytest.raises(ReleaseError, match="moved the pointer meanwhile"):
        online.pointers.move(UNIT, lease, seen_epoch=1, epoch=4, target=target(12, 4))
    with pytest.raises(ReleaseError, match="moved the pointer meanwhile"):
        online.pointers.move(UNIT, lease, seen_epoch=3, epoch=3, target=target(12, 3))
    assert online.pointers.get(UNIT) == target(10, 3)


def test_the_same_move_again_is_no_error(online: OnlineStore, lease: Lease) -> None:
    for _ in range(2):  # As when the answer to the first was lost.
        online.pointers.move(UNIT, lease, seen_epoch=0, epoch=1, target=target(10, 1))
    assert online.pointers.get(UNIT) == target(10, 1)


def test_a_lease_that_was_taken_over_moves_nothing(online: OnlineStore) -> None:
    key = online.pointers.key(UNIT)
    with online.leases.hold(key, "run one") as late:
        with online.leases.hold(key, "run one") as retry:
            with pytest.raises(LeaseLostError, match="took over"):
                move(online, late, target(10, 1))
            assert online.pointers.get(UNIT) is None
            move(online, retry, target(11, 1))
        with pytest.raises(LeaseLostError, match="took over"):
            late.require()
    assert online.pointers.get(UNIT) == target(11, 1)


def test_a_lease_that_ran_out_moves_the_pointer_unless_somebody_took_it(
    online: OnlineStore, lease: Lease
) -> None:
    online._redis.delete(lease.taken.key)
    move(online, lease, target(10, 1))
    assert online.pointers.get(UNIT) == target(10, 1)
    online._redis.delete(lease.taken.key)
    online.leases.give_back(online.leases.take(online.pointers.key(UNIT), "run two"))
    with pytest.raises(LeaseLostError, match="run two took over"):
        move(online, lease, target(11, 2))
    assert online.pointers.get(UNIT) == target(10, 1)


def test_a_lease_that_redis_lost_moves_the_pointer_when_it_is_sure_whose_it_is(
    online: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.0)
    with online.leases.hold(online.pointers.key(UNIT), "run one") as lease:
        online._redis.delete(lease.taken.key, lease.taken.fence_key)
        assert online.leases.renew(lease.taken)[0] == "unsure"
        taken = (lease.taken, 0, 1, target(10, 1), False)
        assert online.pointers._move(UNIT, *taken) == b"lease"
        assert online.pointers.get(UNIT) is None
        move(online, lease, target(10, 1))
    assert online.pointers.get(UNIT) == target(10, 1)


def test_a_lease_that_an_earlier_ferry_took_moves_nothing(
    online: OnlineStore, lease: Lease
) -> None:
    online._redis.set(lease.taken.key, "run two|token")
    with pytest.raises(LeaseLostError, match="run two took over"):
        move(online, lease, target(10, 1))
    assert online.pointers.get(UNIT) is None


def test_what_one_script_uses_is_in_one_slot_of_a_cluster(online: OnlineStore) -> None:
    key = online.pointers.key(UNIT)
    keys = (key, online.leases.key(key), online.leases.fence_key(key))
    assert len({key_slot(each.encode()) for each in keys}) == 1


@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(1, 9_999_123_10000), st.booleans(), st.integers(0, 2)),
        min_size=1,
        max_size=20,
    )
)
def test_whatever_is_asked_the_pointer_goes_back_only_with_leave(
    online: OnlineStore, lease: Lease, moves: list[tuple[int, bool, int]]
) -> None:
    online._redis.delete(online.pointers.key(UNIT))
    live, epoch = None, 0
    for version, backward, stale in moves:
        pointer = target(version, epoch + 1)
        may = not stale and (live is None or version >= live or backward)
        seen = epoch - stale
        try:
            online.pointers.move(
                UNIT, lease, seen_epoch=seen, epoch=epoch + 1, target=pointer,
                allow_backward=backward,
            )  # fmt: skip
        except ReleaseError:
            assert not may
        else:
            assert may
            live, epoch = version, epoch + 1
        found = online.pointers.get(UNIT)
        assert (found.version if found else None, online.pointers.epoch(UNIT)) == (live, epoch)
