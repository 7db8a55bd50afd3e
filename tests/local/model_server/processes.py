"""A model server as its users run it: a process started by the documented command line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from pipelines.patience import Deadline, patient

ROOT = Path(__file__).parents[3]
T = TypeVar("T")


def free_port() -> int:
    """Return a port nobody listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start ``python -m local.model_server``; stderr is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "local.model_server", *arguments],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("TF_")},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def eventually(probe: Callable[[], T], wanted: T, seconds: float = 20.0) -> None:
    """Wait until ``probe()`` gives ``wanted``."""
    until = Deadline(seconds)
    while (seen := probe()) != wanted:
        assert not until.is_over, f"still {seen!r} instead of {wanted!r}"
        time.sleep(0.05)


def model(
    name: str, base: Path, *versions: int, labels: dict[str, int] | None = None
) -> ModelConfig:
    """Return a config entry; with versions the policy is ``specific``, else the default."""
    entry = ModelConfig(name=name, base_path=str(base), model_platform="tensorflow")
    if versions:
        entry.model_version_policy.specific.versions.extend(versions)
    entry.version_labels.update(labels or {})
    return entry


class Server:
    """Clients of one running server."""

    def __init__(self, port: int, rest_port: int, log: Path) -> None:
        self.log = log
        self.rest = httpx.Client(base_url=f"http://localhost:{rest_port}", timeout=patient(20))
        self.channel = grpc.insecure_channel(f"localhost:{port}")
        self.predictions = PredictionServiceStub(self.channel)
        self.models = ModelServiceStub(self.channel)

    def predict(self, name: str, body: str) -> Any:
        """POST a predict request and return its JSON."""
        return self.rest.post(f"/v1/models/{name}:predict", content=body).json()

    def states(self, name: str) -> dict[int, str]:
        """Return the states of a model's versions; empty for a model never seen."""
        request = GetModelStatusRequest()
        request.model_spec.name = name
        try:
            found = self.models.GetModelStatus(request, timeout=patient(10)).model_version_status
        except grpc.RpcError:
            return {}
        return {item.version: type(item).State.Name(item.state) for item in found}

    def reload(self, *entries: ModelConfig, timeout: float = 30.0) -> None:
        """Replace the config by RPC."""
        request = ReloadConfigRequest()
        request.config.model_config_list.SetInParent()
        request.config.model_config_list.config.extend(entries)
        self.models.HandleReloadConfigRequest(request, timeout=patient(timeout))

    def close(self) -> None:
        """Close the clients."""
        self.rest.close()
        self.channel.close()


@contextmanager
def running(directory: Path, *arguments: str) -> Iterator[Server]:
    """Run a server until the block ends; its log is ``server.log`` in ``directory``."""
    port, rest_port = free_port(), free_port()
    log = directory / "server.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "local.model_server"),
                *(f"--port={port}", f"--rest_api_port={rest_port}", *arguments),
                *("--max_num_load_retries=1", "--load_retry_interval_micros=100000"),
            ],
            cwd=ROOT,
            stderr=stderr,
        )
    server = Server(port, rest_port, log)
    try:
        until = Deadline(60)
        while True:
            assert process.poll() is None, log.read_text()
            assert not until.is_over, log.read_text()
            try:
                server.rest.get("/v1/models/any")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield server
    finally:
        server.close()
        process.terminate()
        try:
            assert process.wait(timeout=patient(5)) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
