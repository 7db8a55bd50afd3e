"""Homes of embedded services for the tests, on free ports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from local import health
from local.home import Home, load_home
from pipelines.patience import patient
from tests.services import REPOSITORY

_PORTS = ("AIRFLOW", "REDIS", "S3", "TF_GRPC", "TF_REST")


@dataclass
class LocalCommand:
    """Runs `python -m local` in a home of its own."""

    env: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command; its output (errors included) comes through a pipe."""
        process = subprocess.Popen(
            [sys.executable, "-m", "local", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Run a command; return its exit code and its output."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=patient(200))
        return process.returncode, output

    @property
    def home(self) -> Home:
        """The home as the commands see it."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.env.items():
                patch.setenv(name, value)
            return load_home()

    def home_processes(self) -> list[psutil.Process]:
        """Return all processes that run for this home."""
        root = str(self.root)
        return [
            process
            for process in psutil.process_iter(["cmdline", "environ"])
            if (process.info["environ"] or {}).get("FERRY_HOME") == root
            or root in " ".join(process.info["cmdline"] or [])
        ]

    @property
    def root(self) -> Path:
        """The folder of the home."""
        return Path(self.env["FERRY_HOME"])


@pytest.fixture(scope="session")
def new_local_command() -> Callable[[Path], LocalCommand]:
    """Return a function that makes a LocalCommand for a folder."""

    def make(root: Path) -> LocalCommand:
        ports = dict(zip(_PORTS, health.free_ports(len(_PORTS)), strict=True))
        # A source of its own: nothing is brought in.
        config = root.parent / "pipeline.yaml"
        text = (REPOSITORY / "pipeline.yaml").read_text().replace("{landing}/ratings", "/nowhere")
        config.write_text(text)
        return LocalCommand(
            {
                "FERRY_HOME": str(root),
                "FERRY_CONFIG": str(config),
                "FERRY_DAGS_FOLDER": str(Path(__file__).parent / "dags"),
                **{f"FERRY_{name}_PORT": str(port) for name, port in ports.items()},
            }
        )

    return make


@pytest.fixture
def home(
    tmp_path: Path,
    new_local_command: Callable[[Path], LocalCommand],
    monkeypatch: pytest.MonkeyPatch,
) -> Home:
    """A new home that this process's own environment names."""
    for name, value in new_local_command(tmp_path / "home").env.items():
        monkeypatch.setenv(name, value)
    home = load_home()
    home.make_folders()
    return home


@pytest.fixture
def local(
    tmp_path: Path, new_local_command: Callable[[Path], LocalCommand]
) -> Iterator[LocalCommand]:
    """`python -m local` in a new home; what it started is stopped after the test."""
    command = new_local_command(tmp_path / "home")
    yield command
    command("down")
