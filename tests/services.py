"""Real services for the tests: each is started once a session, on free ports, when first asked for.

Fixtures: `redis_server`, `redis_client`, `s3_server`, `bucket`, `model_server`, `settings`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from local import commands, health
from local.home import HOST, REGION

if TYPE_CHECKING:
    import redis
    from mypy_boto3_s3 import S3Client

    from pipelines.config import Settings

REPOSITORY = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0
_PASSWORD = "test-redis-password"
_serial = itertools.count(1)
_AnyServer = TypeVar("_AnyServer", bound="Server")


@dataclass
class Server:
    """One running service; `stop`, `start` and `kill` let a test restart it."""

    command: commands.Command
    log: Path
    answers: Callable[[], bool]
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start the process and wait until it answers."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command.argv,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **self.command.env},
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if not health.wait_until(self.answers, _START_SECONDS, lambda: self.process.poll() is None):
            self.stop()
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.command.name} did not answer; its log ends with:\n{tail}")

    def stop(self) -> None:
        """End the process; it may save its data. Does nothing if it has ended."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process and its children as a crash would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class RedisServer(Server):
    """A Redis with a password and an append-only file."""

    port: int

    @property
    def url(self) -> str:
        """Its URL with the password."""
        return f"redis://:{_PASSWORD}@{HOST}:{self.port}/0"


@dataclass
class S3Server(Server):
    """An S3 server over a folder; each folder in `root` is a bucket."""

    endpoint_url: str
    access_key: str
    secret_key: str
    root: Path

    def client(self) -> S3Client:
        """Return a boto3 client of this server."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
        )


@dataclass
class ModelServer(Server):
    """A model server with an empty configuration."""

    grpc_port: int
    rest_port: int
    model_dir: Path
    config_file: Path

    def empty(self) -> None:
        """Unload every model and remove its files, so that the next test meets none of them."""
        import httpx

        names = [folder.name for folder in self.model_dir.iterdir() if folder.is_dir()]
        if not names:
            return
        self.config_file.write_text("model_config_list {\n}\n")

        def unloaded() -> bool:
            answers = (
                httpx.get(f"http://{HOST}:{self.rest_port}/v1/models/{name}") for name in names
            )
            return not any('"AVAILABLE"' in answer.text for answer in answers)

        assert health.wait_until(unloaded, 15.0), f"the model server still serves one of {names}"
        for name in names:
            shutil.rmtree(self.model_dir / name)


def new_redis(folder: Path) -> RedisServer:
    """Return a Redis, not started yet, that keeps its data in `folder`."""
    (port,) = health.free_ports(1)
    return RedisServer(
        commands.redis_command(folder, port, _PASSWORD, maxmemory="512mb"),
        folder / "log",
        lambda: health.redis_answers(port, _PASSWORD),
        port,
    )


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for the session; use `redis_client`, or a prefix of your own, for a clean start."""
    yield from running(new_redis(tmp_path_factory.mktemp("redis")))


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client (answers are bytes) of an emptied Redis."""
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server for the session."""
    folder = tmp_path_factory.mktemp("s3")
    root = folder / "buckets"
    root.mkdir()
    (port,) = health.free_ports(1)
    key, secret = "test-access-key-id", "test-secret-access-key"
    server = S3Server(
        commands.s3_command(root, port, key, secret),
        folder / "log",
        lambda: health.s3_answers(port),
        f"http://{HOST}:{port}",
        key,
        secret,
        root,
    )
    yield from running(server)


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """The name of a new, empty bucket."""
    name = f"test-{next(_serial)}"
    s3_server.client().create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def model_server_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """The model server behind `model_server`."""
    folder = tmp_path_factory.mktemp("model_server")
    models = folder / "models"
    models.mkdir()
    grpc_port, rest_port = health.free_ports(2)
    config_file = models / "models.config"
    server = ModelServer(
        commands.model_server_command(config_file, grpc_port, rest_port),
        folder / "log",
        lambda: health.model_server_answers(grpc_port, rest_port),
        grpc_port,
        rest_port,
        models,
        config_file,
    )
    yield from running(server)


@pytest.fixture
def model_server(model_server_session: ModelServer) -> Iterator[ModelServer]:
    """A model server that has no models when the test starts."""
    yield model_server_session
    model_server_session.empty()


@pytest.fixture
def settings_for(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    redis_server: RedisServer,
    s3_server: S3Server,
    bucket: str,
) -> Callable[..., Settings]:
    """Return a function that makes Settings of this test's own: prefix, bucket and lake.

    It takes fields of Settings to override, and ``model_server=False`` for a test that needs none
    (its address then refuses connections).
    """
    from pipelines.config import PROJECT_ROOT, Settings

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    for variable in [name for name in os.environ if name.startswith("FERRY_")]:
        monkeypatch.delenv(variable)
    prefix = f"test-{next(_serial)}"

    def make(*, model_server: bool = True, **overrides: Any) -> Settings:
        if model_server:
            server = request.getfixturevalue("model_server")
            models, grpc_port, rest_port = server.model_dir, server.grpc_port, server.rest_port
        else:
            models, grpc_port, rest_port = tmp_path / "models", 1, 1
            models.mkdir(exist_ok=True)
        values = {
            "FERRY_LAKE": str(tmp_path / "lake"),
            "config": PROJECT_ROOT / "pipeline.yaml",
            "redis_url": redis_server.url,
            "redis_prefix": prefix,
            "s3_endpoint_url": s3_server.endpoint_url,
            "bucket": bucket,
            "tf_serving": f"{HOST}:{grpc_port}:{rest_port}",
            "model_dir": models,
            "spark_master": "local[2]",
        }
        return Settings.model_validate({**values, **overrides})

    return make


@pytest.fixture
def settings(settings_for: Callable[..., Settings]) -> Settings:
    """Settings of this test's own on all three services."""
    return settings_for()


def running(server: _AnyServer) -> Iterator[_AnyServer]:
    """Yield a server that runs, and stop it afterwards."""
    server.start()
    try:
        yield server
    finally:
        server.stop()
