"""Failures to start: one clear line, at once, and a non-zero exit code."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from pipelines.patience import patient
from tests.local.model_server.processes import free_port, start


def test_an_unknown_flag_is_one_line() -> None:
    process = start("--model_base_path=/m", "--no_such_flag=1")
    _, errors = process.communicate(timeout=patient(20))
    assert process.returncode == 1
    assert errors == "model server: unknown flag --no_such_flag (--help lists the flags)\n"


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_a_port_in_use_is_named(tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"port": free_port(), "rest_api_port": free_port(), flag: port}
        process = start(
            f"--model_base_path={tmp_path}", *(f"--{name}={at}" for name, at in ports.items())
        )
        _, errors = process.communicate(timeout=patient(20))
    assert process.returncode == 1
    assert errors == f"model server: port {port} (--{flag}) is in use or not permitted\n"


def test_a_signal_ends_a_server_that_is_still_starting(tmp_path: Path) -> None:
    process = start(f"--port={free_port()}", f"--model_base_path={tmp_path}")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)  # the imports take longer than that
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=patient(5))
    assert process.returncode == 0
