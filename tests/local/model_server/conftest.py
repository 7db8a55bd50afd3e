"""One server for most tests: starting TensorFlow costs seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from tests.local.model_server import saved_models
from tests.local.model_server.processes import Server, model, running


@dataclass
class Served:
    """The shared server, and where the models it always serves are."""

    server: Server
    root: Path

    def reload(self, *more: ModelConfig) -> None:
        """Replace the config by the standing models and these."""
        self.server.reload(*self.standing(), *more)

    def standing(self) -> list[ModelConfig]:
        """Return the config entries of the models that are always there."""
        names = ("half_plus_two", "kinds", "examples")
        return [model(name, self.root / name) for name in names]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve half_plus_two, kinds and examples, one version each."""
    root = tmp_path_factory.mktemp("served")
    saved_models.half_plus(root / "half_plus_two", 1)
    saved_models.kinds(root / "kinds", 7)
    saved_models.examples(root / "examples", 1)
    config = root / "models.config"
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{root / name}" model_platform: "tensorflow" }}\n'
        for name in ("half_plus_two", "kinds", "examples")
    )
    config.write_text(f"model_config_list {{ {entries} }}")
    with running(root, f"--model_config_file={config}") as server:
        yield Served(server, root)


@pytest.fixture
def server(served: Served) -> Server:
    """Return the clients of the shared server."""
    return served.server
