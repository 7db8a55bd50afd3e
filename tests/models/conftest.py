"""The tiny worlds, written once for all tests of models; a test that changes one makes its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.models.world import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Integer ids."""
    return make_world(tmp_path_factory.mktemp("world") / "int64")


@pytest.fixture(scope="session")
def string_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """String ids."""
    return make_world(tmp_path_factory.mktemp("world") / "string", "string")


@pytest.fixture
def new_world(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    """A function that writes a world of one's own."""

    def make(**config: Any) -> World:
        return make_world(tmp_path_factory.mktemp("world") / "own", **config)

    return make
