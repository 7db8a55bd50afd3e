"""The command line, with the flag names and defaults of ``tensorflow_model_server``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.model_server.errors import StartupError

_CPUS = len(os.sched_getaffinity(0))
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def _flag(default: object, text: str) -> Any:
    """Declare one flag: its default and its line in ``--help``."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Flags:
    """What the server was started with. Field names are the flag names."""

    port: int = _flag(8500, "gRPC port, on the loopback interface")
    rest_api_port: int = _flag(0, "HTTP/REST port, on the loopback interface; 0: no REST")
    rest_api_num_threads: int = _flag(4 * _CPUS, "threads for REST requests")
    rest_api_timeout_in_ms: int = _flag(30_000, "longest time for one REST request; 0: no limit")
    grpc_socket_path: str = _flag("", "also serve gRPC on this UNIX socket")
    grpc_channel_arguments: str = _flag("", "gRPC server options, key=value,key=value")
    # More than the real default of 4 per core: a reload that waits for a new model keeps its
    # thread, and predictions are not to starve behind a queue of those. Idle ones do not exist.
    grpc_max_threads: int = _flag(64, "threads for gRPC requests")
    model_name: str = _flag("default", "model name (unused with --model_config_file)")
    model_base_path: str = _flag("", "absolute path that holds the version directories")
    model_config_file: str = _flag("", "ModelServerConfig as protobuf text")
    model_config_file_poll_wait_seconds: int = _flag(0, "re-read the config file; 0: read it once")
    file_system_poll_wait_seconds: int = _flag(1, "look for versions; 0: once; negative: never")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "a label that points nowhere yet may name a version that is not AVAILABLE"
    )
    max_num_load_retries: int = _flag(5, "further attempts after a failed load")
    load_retry_interval_micros: int = _flag(60_000_000, "pause before a further attempt")
    num_load_threads: int = _flag(2, "versions loaded at the same time")
    num_unload_threads: int = _flag(1, "versions unloaded at the same time")
    saved_model_tags: str = _flag("serve", "tags of the graph to load, comma-separated")
    enable_model_warmup: bool = _flag(True, "replay assets.extra/tf_serving_warmup_requests")
    num_request_iterations_for_warmup: int = _flag(1, "times each warmup record is replayed")
    tensorflow_session_parallelism: int = _flag(0, "sets both of the following")
    tensorflow_intra_op_parallelism: int = _flag(0, "threads of one operation; 0: at most 2")
    tensorflow_inter_op_parallelism: int = _flag(0, "operations run at once; 0: at most 2")
    enable_batching: bool = _flag(False, "accepted; requests are always run one by one")
    batching_parameters_file: str = _flag("", "accepted with --enable_batching; not read")
    flush_filesystem_caches: bool = _flag(True, "accepted; there is no such cache here")


_FIELDS = {item.name: item for item in dataclasses.fields(Flags)}


def parse(argv: Sequence[str]) -> Flags:
    """Parse ``argv`` (without the program name).

    ``--flag=value`` and ``--flag value`` are the same; a boolean also stands alone. As with the
    real program, the last mention of a flag wins.

    Raises:
        StartupError: an unknown flag, a value of the wrong type, or flags that contradict.
    """
    values: dict[str, Any] = {name: _convert(name, text) for name, text in _pairs(argv)}
    flags = Flags(**values)
    _check(flags)
    return flags


def usage() -> str:
    """Return the text of ``--help``."""
    lines = ["python -m local.model_server [--flag=value ...]", ""]
    for item in _FIELDS.values():
        lines.append(f"  --{item.name:<46}{item.metadata['help']} [{item.default}]")
    return "\n".join(lines)


def _pairs(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (flag, value text) for each flag of the line."""
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        name, given, text = token.removeprefix("--").partition("=")
        if not token.startswith("--") or name not in _FIELDS:
            raise StartupError(f"unknown flag {token.partition('=')[0]} (--help lists the flags)")
        if given:
            yield name, text
        elif _FIELDS[name].type == "bool" and (not rest or rest[0] not in (*_TRUE, *_FALSE)):
            yield name, "true"
        elif not rest or rest[0].startswith("--"):
            raise StartupError(f"flag --{name} needs a value")
        else:
            yield name, rest.pop(0)


def _convert(name: str, text: str) -> object:
    kind = _FIELDS[name].type
    if kind == "str":
        return text
    if kind == "bool":
        if text.lower() not in (*_TRUE, *_FALSE):
            raise StartupError(f"flag --{name} takes true or false, not {text!r}")
        return text.lower() in _TRUE
    try:
        return int(text)
    except ValueError:
        raise StartupError(f"flag --{name} takes a whole number, not {text!r}") from None


def _check(flags: Flags) -> None:
    for name in ("port", "rest_api_port"):
        port = getattr(flags, name)
        if not 0 <= port <= 65_535:
            raise StartupError(f"flag --{name}: {port} is not a port")
    if flags.port == 0:
        raise StartupError("flag --port must name a port")
    if flags.port == flags.rest_api_port:
        raise StartupError("--rest_api_port cannot be the same as --port")
    if not flags.model_base_path and not flags.model_config_file:
        raise StartupError("give --model_base_path or --model_config_file")
    if flags.model_config_file and not Path(flags.model_config_file).is_file():
        raise StartupError(f"--model_config_file {flags.model_config_file} is not a file")
    if flags.batching_parameters_file and not flags.enable_batching:
        raise StartupError("--batching_parameters_file needs --enable_batching")
    for name in ("rest_api_num_threads", "grpc_max_threads", "num_load_threads"):
        if getattr(flags, name) < 1:
            raise StartupError(f"flag --{name} must be at least 1")
