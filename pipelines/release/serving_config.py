"""The model servers' configuration, which Ferry owns whole.

A reload replaces a server's entire configuration and there is no call to read it back, so the
file ``models.config`` beside the models is the copy that counts: servers read it when they start
and poll it, and a change is also sent to each replica at once. It is written before it is sent: a
server that polled the older file would undo what was sent.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from pipelines.config import Settings
from pipelines.errors import ReleaseError, ServiceError
from pipelines.online import serving_protos as pb
from pipelines.online.tf_serving import ModelServer

CONFIG_FILE = "models.config"
STABLE = "stable"
CANARY = "canary"

_POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old or the new content, also after a crash."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def read_config(model_dir: Path) -> Any:
    """Return the ``ModelServerConfig`` that the servers shall have; empty at first.

    Raises:
        ReleaseError: the file can't be parsed.
    """
    config = pb.model_server_config_pb2.ModelServerConfig()
    path = model_dir / CONFIG_FILE
    if path.exists():
        try:
            text_format.Parse(path.read_text(encoding="utf-8"), config)
        except text_format.ParseError as error:
            raise ReleaseError(f"{path} is no model configuration: {error}") from error
    return config


def with_model(
    config: Any, unit: str, base_path: Path, versions: Sequence[int], labels: Mapping[str, int]
) -> Any:
    """Return a copy of `config` in which `unit` has exactly these versions and labels."""
    changed = pb.model_server_config_pb2.ModelServerConfig()
    changed.CopyFrom(config)
    models = changed.model_config_list.config
    model = next((m for m in models if m.name == unit), None) or models.add(name=unit)
    model.base_path = str(base_path)
    model.model_platform = "tensorflow"
    model.model_version_policy.specific.versions[:] = sorted(set(versions))
    model.version_labels.clear()
    for label, version in labels.items():
        model.version_labels[label] = version
    return changed


def configured_versions(config: Any, unit: str) -> list[int]:
    """Return the versions of a unit that the configuration loads."""
    for model in config.model_config_list.config:
        if model.name == unit:
            return list(model.model_version_policy.specific.versions)
    return []


def apply_config(settings: Settings, config: Any, seconds: float) -> None:
    """Write the configuration and send it to every replica; if one refuses, put all back.

    Raises:
        ServiceError: a replica did not take it; the message names it.
    """
    former = read_config(settings.model_dir)
    path = settings.model_dir / CONFIG_FILE
    write_atomically(path, text_format.MessageToString(config))
    sent: list[ModelServer] = []
    servers = [ModelServer(replica) for replica in settings.tf_serving]
    try:
        for server in servers:
            sent.append(server)
            server.reload(config, seconds)
    except ServiceError:
        write_atomically(path, text_format.MessageToString(former))
        if former.model_config_list.config:
            _send_back(sent, former, seconds)
        raise
    finally:
        for server in servers:
            server.close()


def _send_back(servers: Sequence[ModelServer], config: Any, seconds: float) -> None:
    for server in servers:
        try:
            server.reload(config, seconds)
        except ServiceError as error:
            # The replica that failed; it reads the file, which is put back, when it polls.
            log.warning("could not put back the configuration: %s", error)


def wait_available(settings: Settings, unit: str, version: int, seconds: float) -> None:
    """Wait until every replica has the version AVAILABLE.

    Raises:
        ServiceError: a replica does not answer.
        ReleaseError: a replica failed to load it, or the time is over; the message names it.
    """
    deadline = time.monotonic() + seconds
    for replica in settings.tf_serving:
        with ModelServer(replica) as server:
            while True:
                state, message = server.versions(unit).get(version, ("not known", ""))
                if state == "AVAILABLE":
                    break
                if state == "END" and message:
                    raise ReleaseError(
                        f"model server at {replica.grpc} could not load {unit} {version}: {message}"
                    )
                if time.monotonic() > deadline:
                    raise ReleaseError(
                        f"model server at {replica.grpc}: {unit} {version} is {state} after "
                        f"{seconds:.0f} s, not AVAILABLE {message}".rstrip()
                    )
                time.sleep(_POLL_SECONDS)
