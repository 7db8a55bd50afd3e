"""The command line."""

from __future__ import annotations

import pytest

from local.model_server import flags
from local.model_server.errors import StartupError

BASE = "--model_base_path=/m"


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        ("", "port", 8500),
        ("", "rest_api_port", 0),
        ("", "model_name", "default"),
        ("--port=9000", "port", 9000),
        ("--port 9000", "port", 9000),
        ("--port 9000 --port=9001", "port", 9001),
        ("--model_name half_plus_two", "model_name", "half_plus_two"),
        ("--model_name=", "model_name", ""),
        ("--file_system_poll_wait_seconds -1", "file_system_poll_wait_seconds", -1),
        ("--enable_batching", "enable_batching", True),
        ("--enable_batching --port 9000", "port", 9000),
        ("--enable_batching=true", "enable_batching", True),
        ("--enable_model_warmup=false", "enable_model_warmup", False),
        ("--enable_model_warmup false", "enable_model_warmup", False),
        (
            "--allow_version_labels_for_unavailable_models=true",
            "allow_version_labels_for_unavailable_models",
            True,
        ),
    ],
)
def test_parse(line: str, name: str, expected: object) -> None:
    assert getattr(flags.parse([BASE, *line.split()]), name) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--model_bas_path=/m", "unknown flag --model_bas_path"),
        ("-port=1", "unknown flag -port"),
        ("serve", "unknown flag serve"),
        ("--port", "--port needs a value"),
        ("--model_name --port=1", "--model_name needs a value"),
        ("--port=http", "--port takes a whole number, not 'http'"),
        ("--port=0", "--port must name a port"),
        ("--port=70000", "70000 is not a port"),
        ("--rest_api_port=8500", "cannot be the same"),
        ("--enable_batching=maybe", "takes true or false"),
        ("--batching_parameters_file=/b", "needs --enable_batching"),
        ("--rest_api_num_threads=0", "at least 1"),
        ("--model_config_file=/does/not/exist", "/does/not/exist is not a file"),
        ("--ssl_config_file=/s", "unknown flag --ssl_config_file"),
    ],
)
def test_refused(line: str, message: str) -> None:
    with pytest.raises(StartupError, match=message):
        flags.parse([BASE, *line.split()])


def test_some_model_is_needed() -> None:
    with pytest.raises(StartupError, match="--model_base_path or --model_config_file"):
        flags.parse([])


def test_every_flag_is_in_the_help() -> None:
    text = flags.usage()
    assert "--model_config_file_poll_wait_seconds" in text
    assert "--allow_version_labels_for_unavailable_models" in text
