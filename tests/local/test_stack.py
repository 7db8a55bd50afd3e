"""The services as a whole: up, down, up again, and what can go wrong."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from local import health
from local.home import Home
from local.processes import exclusive
from local.stack import Stack
from pipelines.errors import ConfigError, ServiceError


@pytest.fixture
def stack(home: Home) -> Iterator[Stack]:
    stack = Stack(home, lambda line: None)
    yield stack
    stack.services.stop()


def redis_of(stack: Stack) -> redis.Redis:
    port = stack.home.port("redis").number
    return redis.Redis("127.0.0.1", port, password=stack.secrets.redis_password)


def manager_of(stack: Stack) -> psutil.Process:
    record = stack.services.record()
    manager = record.manager.find() if record else None
    assert manager
    return manager


def test_services_are_reused_and_survive_a_crash_and_a_restart(stack: Stack) -> None:
    stack.services_up()
    manager = manager_of(stack)
    with redis_of(stack) as client:
        client.set("key", "value")
    (stack.home.objects / "ferry" / "object").write_text("stored")
    config = stack.home.models_config
    config.write_text("model_config_list {\n}\n# a release's\n")

    stack.services_up()
    assert manager_of(stack) == manager

    # The manager is killed: its children live on, hold the ports, and are still ours to end.
    children = manager.children(recursive=True)
    manager.kill()
    manager.wait()
    assert any(child.is_running() for child in children)
    stack.services_up()
    assert not any(child.is_running() for child in children)

    assert stack.services.stop()
    assert not stack.services.stop()
    stack.services_up()
    with redis_of(stack) as client:
        assert client.get("key") == b"value"
    assert (stack.home.objects / "ferry" / "object").read_text() == "stored"
    assert config.read_text().endswith("# a release's\n")


def test_a_taken_port_is_named_with_its_variable(stack: Stack) -> None:
    number, variable = stack.home.port("s3")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", number))
        taken.listen()
        with pytest.raises(ConfigError, match=rf"port {number} is taken.*{variable}"):
            stack.services_up()
    assert not stack.services.is_running()


def test_a_service_that_dies_is_named_with_the_end_of_its_log(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bin" / "tensorflow_model_server"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no such processor\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ServiceError, match=r"model_server stopped .*\n  no such processor"):
        stack.services_up()
    # The others did not stay behind.
    assert health.port_is_free(stack.home.port("redis").number)


def test_a_record_of_another_process_is_not_believed(stack: Stack) -> None:
    own = psutil.Process()
    record = {"pid": own.pid, "at": own.create_time() - 3600}
    (stack.home.run / "services.json").write_text(
        f'{{"manager": {{"pid": {record["pid"]}, "at": {record["at"]}}}, "fingerprint": ""}}'
    )
    assert not stack.services.is_running()
    assert not stack.services.stop()
    assert not (stack.home.run / "services.json").exists()


def test_only_one_run_at_a_time(stack: Stack) -> None:
    with exclusive(stack.home, "run") as first, exclusive(stack.home, "run") as second:
        assert (first, second) == (True, False)


def test_clean_removes_what_is_ours_alone(stack: Stack) -> None:
    home: Home = stack.home
    (home.root / "notes.txt").write_text("mine")
    assert stack.secrets
    stack.remove()
    assert [path.name for path in home.root.iterdir()] == ["notes.txt"]
    (home.root / "notes.txt").unlink()
    stack.remove()
    assert not home.root.exists()
