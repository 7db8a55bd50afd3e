from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pipelines.config import Settings
from pipelines.errors import ReleaseError
from pipelines.online import leases as leases_module
from pipelines.online.leases import LeaseLostError, Leases
from pipelines.online.store import OnlineStore


@pytest.fixture
def leases(settings_for: Callable[..., Settings]) -> Iterator[Leases]:
    store = OnlineStore.connect(settings_for(model_server=False))
    yield store.leases
    store.close()


def test_a_lease_has_one_holder_who_is_named(leases: Leases) -> None:
    with (
        leases.hold("things", "run one"),
        pytest.raises(ReleaseError, match="the things is being changed by run one"),
        leases.hold("things", "run two", label="the things"),
    ):
        pass
    with leases.hold("things", "run two"):
        assert leases.holder("things") == "run two"
    assert leases.holder("things") is None


def test_others_are_not_in_the_way(leases: Leases) -> None:
    with leases.hold("things", "run one"), leases.hold("other things", "run two"):
        pass


def test_who_waits_gets_it_when_it_is_free(leases: Leases) -> None:
    free = threading.Event()

    def hold() -> None:
        with leases.hold("things", "run one"):
            free.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    while leases.holder("things") is None:
        time.sleep(0.01)
    threading.Timer(0.3, free.set).start()
    with leases.hold("things", "run two", wait=5):
        assert leases.holder("things") == "run two"
    holder.join()


def test_the_same_owner_takes_over_at_once(leases: Leases) -> None:
    with leases.hold("things", "run one"), leases.hold("things", "run one"):
        assert leases.holder("things") == "run one"
        # What was taken over is not given back by the one who lost it.
    with leases.hold("things", "run two"):
        pass


def test_an_owner_whose_name_only_begins_alike_does_not(leases: Leases) -> None:
    with (
        leases.hold("things", "run 1"),
        pytest.raises(ReleaseError, match="by run 1"),
        leases.hold("things", "run 1|2"),
    ):
        pass


def test_without_taking_over_also_the_same_owner_waits(leases: Leases) -> None:
    with (
        leases.hold("things", "run one", take_over=False),
        pytest.raises(ReleaseError, match="by run one"),
        leases.hold("things", "run one", take_over=False),
    ):
        pass


def test_a_lease_is_kept_alive_and_noticed_when_lost(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "LEASE_SECONDS", 1.0)
    with leases.hold("things", "run one") as lease:
        time.sleep(2)
        assert leases.holder("things") == "run one"
        lease.require()
        leases._redis.delete(lease.key)
        # Who keeps it alive notices, and it stays lost, whatever Redis says from now on.
        assert lease._lost.wait(10)
        leases._redis.set(lease.key, lease.token)
        with pytest.raises(LeaseLostError, match="took over"):
            lease.require()


def test_a_holder_that_is_gone_is_outlived(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "LEASE_SECONDS", 1.0)
    # As a killed process leaves it: held, and nobody renews it.
    leases._take("things", "things", "run one", 0.0, take_over=True)
    with leases.hold("things", "run two", wait=10):
        assert leases.holder("things") == "run two"
