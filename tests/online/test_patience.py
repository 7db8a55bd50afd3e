"""A Redis or an object storage that hangs: steps wait for it, readers do not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import ReleaseConfig, Settings
from pipelines.errors import ServiceError
from pipelines.online import connection
from pipelines.online.client import FerryClient
from pipelines.online.connection import open_redis
from pipelines.online.store import OnlineStore
from pipelines.patience import Patience, patient
from pipelines.release import objects
from pipelines.release.context import release_context
from pipelines.release.objects import ObjectStore
from tests.services import RedisServer, S3Server, Server, new_redis, running

STALL_SECONDS = 1.0


@pytest.fixture(scope="module")
def mortal_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    yield from running(new_redis(tmp_path_factory.mktemp("redis")))


@contextmanager
def stalled(server: Server, seconds: float = STALL_SECONDS) -> Iterator[None]:
    """Let a service stand still for `seconds` from the beginning of the block."""
    os.kill(server.process.pid, signal.SIGSTOP)
    going_on = threading.Timer(seconds, os.kill, (server.process.pid, signal.SIGCONT))
    going_on.start()
    try:
        yield
    finally:
        going_on.join()


def test_a_step_waits_for_a_redis_that_hangs_and_asks_once(mortal_redis: RedisServer) -> None:
    with open_redis(mortal_redis.url, Patience.STEP) as client, stalled(mortal_redis):
        assert client.incr("asked") == 1


def test_a_step_outlasts_also_a_longer_stall(
    mortal_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection._TIMEOUT_SECONDS, Patience.STEP, 0.7 * STALL_SECONDS)
    store = OnlineStore(mortal_redis.url, "p", Patience.STEP)
    with stalled(mortal_redis), store.leases.hold("things", "run one") as lease:
        lease.require()
    store.close()


def test_a_reader_fails_and_names_the_address(
    mortal_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection._TIMEOUT_SECONDS, Patience.READER, 0.05)
    store = OnlineStore(mortal_redis.url, "p")
    with stalled(mortal_redis, patient(5.0)):
        began = time.monotonic()
        with pytest.raises(ServiceError, match=f"^Redis at 127.0.0.1:{mortal_redis.port}: Timeout"):
            store.ping()
        assert time.monotonic() - began < patient(4.0)
    store.close()


def test_a_step_waits_for_an_object_storage_that_hangs(
    s3_server: S3Server,
    settings_for: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    # Less than the stall in which a reader would have asked four times.
    monkeypatch.setitem(objects._TIMEOUT_SECONDS, Patience.READER, (0.05, 0.05))
    settings = settings_for(model_server=False)
    step = ObjectStore.connect(settings, Patience.STEP)
    file = tmp_path / "file"
    file.write_bytes(os.urandom(20 << 20))
    step.put_text("before", "{}")
    with stalled(s3_server):
        assert step.get_text("before") == "{}"
    with stalled(s3_server):
        entry = step.upload(file, "file", "file")
    with stalled(s3_server):
        step.download("file", tmp_path / "again", entry)
    with stalled(s3_server, 5.0), pytest.raises(ServiceError, match="object storage at http"):
        ObjectStore.connect(settings).get_text("before")


def test_what_opens_a_release_waits_as_a_step_and_a_client_as_a_reader(
    settings_for: Callable[..., Settings],
) -> None:
    def of_redis(store: OnlineStore) -> float:
        return float(store._redis.connection_pool.connection_kwargs["socket_timeout"])

    def of_s3(store: ObjectStore) -> tuple[float, float]:
        config: Any = store._client.meta.config
        return config.connect_timeout, config.read_timeout

    settings = settings_for(model_server=False)
    with (
        release_context(settings, ReleaseConfig(), "a test") as context,
        FerryClient(settings) as reader,
    ):
        assert min(of_redis(context.online), *of_s3(context.registry.objects)) > 60
        assert of_redis(reader.online) == 10
        assert of_s3(ObjectStore.connect(settings)) == (5, 60)
