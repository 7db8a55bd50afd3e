"""The compose file with the secrets that `scripts/make_env.sh` makes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docker import composition
from tests.services import REPOSITORY


def make_env(path: Path) -> str:
    """Run the script; returns what it says."""
    done = subprocess.run(
        [REPOSITORY / "scripts" / "make_env.sh", path],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stderr


@pytest.fixture(scope="session")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a fresh `.env`."""
    path = tmp_path_factory.mktemp("compose") / ".env"
    make_env(path)
    return composition.read_env(path)


@pytest.fixture(scope="session")
def compose(env: dict[str, str]) -> dict[str, Any]:
    """The whole compose file."""
    return composition.load(env)


@pytest.fixture(scope="session")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Its services by name."""
    found: dict[str, dict[str, Any]] = compose["services"]
    return found
