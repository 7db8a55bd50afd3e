"""Open release contexts, and small SavedModels that are made once.

Fixtures: `models`, `tables_only`, `served`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.config import ReleaseConfig, Settings
from pipelines.release.context import ReleaseContext, release_context
from tests.release.versions import save_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one SavedModel for each of the weights."""
    return save_models(tmp_path_factory.mktemp("saved_models"))


@pytest.fixture
def tables_only(settings_for: Callable[..., Settings]) -> Iterator[ReleaseContext]:
    """A context without a model server: its address refuses connections."""
    settings = settings_for(model_server=False)
    with release_context(settings, ReleaseConfig(golden_size=16), "a test") as opened:
        yield opened


@pytest.fixture
def served(settings: Settings) -> Iterator[ReleaseContext]:
    """A context with a model server."""
    with release_context(settings, ReleaseConfig(load_timeout_seconds=10), "a test") as opened:
        yield opened
