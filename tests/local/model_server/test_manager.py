"""The life cycle, with servables that the test controls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.model_server.errors import Code, ServingError
from local.model_server.manager import Manager
from local.model_server.policy import State
from tests.local.model_server.processes import eventually


class Thing:
    """A servable that knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Factory:
    """Loads things; versions in ``broken`` fail, those in ``slow`` wait for ``go``."""

    def __init__(self) -> None:
        self.broken: set[int] = set()
        self.slow: set[int] = set()
        self.go = threading.Event()
        self.loads: list[int] = []

    def __call__(self, model: str, version: int, path: Path) -> Thing:
        self.loads.append(version)
        if version in self.slow:
            assert self.go.wait(10)
        if version in self.broken:
            raise ServingError(Code.NOT_FOUND, "nothing there")
        return Thing()


@pytest.fixture
def factory() -> Factory:
    return Factory()


@pytest.fixture
def manager(factory: Factory) -> Iterator[Manager[Thing]]:
    manager = Manager(factory, retries=2, retry_seconds=0.01)
    yield manager
    factory.go.set()
    manager.close()


def aspire(manager: Manager[Thing], *versions: int) -> None:
    manager.set_aspired("m", {version: Path(f"/m/{version}") for version in versions})


def states(manager: Manager[Thing]) -> dict[int, State]:
    return {item.version: item.state for item in manager.statuses("m")}


def test_a_request_in_flight_outlives_the_unload(manager: Manager[Thing]) -> None:
    aspire(manager, 1)
    manager.wait_until_available(["m"])
    with manager.use("m") as (version, thing):
        assert version == 1
        aspire(manager, 2)
        eventually(lambda: states(manager), {2: State.AVAILABLE, 1: State.UNLOADING})
        with manager.use("m") as (newer, _):
            assert newer == 2
        with pytest.raises(ServingError, match=r"Specific\(m, 1\)"), manager.use("m", 1):
            pass
        assert not thing.closed.wait(0.1)
    assert thing.closed.wait(5)
    eventually(lambda: states(manager), {2: State.AVAILABLE, 1: State.END})


def test_the_old_version_serves_until_the_new_one_is_ready(
    manager: Manager[Thing], factory: Factory
) -> None:
    aspire(manager, 1)
    manager.wait_until_available(["m"])
    factory.slow.add(2)
    aspire(manager, 2)
    eventually(lambda: states(manager), {2: State.LOADING, 1: State.AVAILABLE})
    with manager.use("m") as (version, _):
        assert version == 1
    factory.go.set()
    eventually(lambda: states(manager), {2: State.AVAILABLE, 1: State.END})


def test_a_failing_version_is_retried_then_ends_and_costs_nothing(
    manager: Manager[Thing], factory: Factory
) -> None:
    aspire(manager, 1)
    manager.wait_until_available(["m"])
    factory.broken.add(2)
    aspire(manager, 2)
    eventually(lambda: states(manager), {2: State.END, 1: State.AVAILABLE})
    assert factory.loads == [1, 2, 2, 2]
    newest = manager.statuses("m")[0]
    assert newest.error is not None
    assert newest.error.code is Code.NOT_FOUND
    aspire(manager, 2)
    assert factory.loads == [1, 2, 2, 2], "not tried again while it is still aspired"
    aspire(manager, 1)
    factory.broken.clear()
    aspire(manager, 2)
    eventually(lambda: states(manager), {2: State.AVAILABLE, 1: State.END})


def test_a_version_dropped_while_it_loads_is_unloaded_after(
    manager: Manager[Thing], factory: Factory
) -> None:
    factory.slow.add(1)
    aspire(manager, 1)
    eventually(lambda: states(manager), {1: State.LOADING})
    aspire(manager)
    factory.go.set()
    eventually(lambda: states(manager), {1: State.END})


def test_a_version_wanted_again_during_its_unload_comes_back(manager: Manager[Thing]) -> None:
    aspire(manager, 1)
    manager.wait_until_available(["m"])
    with manager.use("m"):
        aspire(manager)
        eventually(lambda: states(manager), {1: State.UNLOADING})
        aspire(manager, 1)
    eventually(lambda: states(manager), {1: State.AVAILABLE})


def test_waiting_for_a_model_that_fails(manager: Manager[Thing], factory: Factory) -> None:
    factory.broken.add(1)
    aspire(manager, 1)
    manager.wait_until_tried(["m", "nothing on disk"])
    with pytest.raises(ServingError) as caught:
        manager.wait_until_available(["m"])
    assert caught.value.code is Code.UNKNOWN
    assert "{{name: m version: 1} due to error: NOT_FOUND: nothing there}" in str(caught.value)


def test_closing_ends_a_wait_that_would_have_no_end(manager: Manager[Thing]) -> None:
    threading.Timer(0.1, manager.close).start()
    with pytest.raises(ServingError) as caught:
        manager.wait_until_available(["no versions on disk"])
    assert caught.value.code is Code.CANCELLED
