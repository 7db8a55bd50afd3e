"""Units that are live, and the pages over them as a browser asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from ferry_ui.app import make_app
from ferry_ui.services import Services

from pipelines.config import ReleaseConfig, Settings
from pipelines.release.context import ReleaseContext, release_context
from tests.release.versions import save_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one SavedModel for each of the weights."""
    return save_models(tmp_path_factory.mktemp("saved_models"))


@pytest.fixture
def context(settings: Settings) -> Iterator[ReleaseContext]:
    """A context with a model server, whose owner is not to be trusted either."""
    config = ReleaseConfig(golden_size=16, load_timeout_seconds=10)
    with release_context(settings, config, '<script>alert("who")</script>') as opened:
        yield opened


@pytest.fixture
def tables_only(settings_for: Callable[..., Settings]) -> Iterator[ReleaseContext]:
    """A context without a model server."""
    settings = settings_for(model_server=False)
    with release_context(settings, ReleaseConfig(golden_size=16), "a test") as opened:
        yield opened


@dataclass
class Pages:
    """The pages; `client` is somebody who may see them, unless `refuses` is set."""

    settings: Settings
    refuses: int | None = None
    client: TestClient = field(init=False)
    services: Services = field(init=False)

    def __post_init__(self) -> None:
        self.services = Services(lambda: self.settings)
        app = make_app(self.services, self._guard)
        self.client = TestClient(app, root_path="/airflow/ferry", raise_server_exceptions=True)

    def _guard(self) -> None:
        if self.refuses:
            raise HTTPException(self.refuses, "Not authenticated")


@pytest.fixture
def pages_for() -> Iterator[Callable[[Settings], Pages]]:
    """Return a function that opens the pages over some settings."""
    opened: list[Pages] = []

    def make(settings: Settings) -> Pages:
        opened.append(Pages(settings))
        return opened[-1]

    yield make
    for pages in opened:
        pages.services.close()
