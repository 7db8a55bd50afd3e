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
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from pipelines.config import Replica, Settings
from pipelines.errors import ReleaseError, ServiceError
from pipelines.online import serving_protos as pb
from pipelines.online.tf_serving import ModelServer
from pipelines.patience import Deadline, Patience

CONFIG_FILE = "models.config"
STABLE = "stable"
CANARY = "canary"
#: Labels of known models, or models that are loaded already, are set at once: a replica that takes
#: longer hangs, unless the machine is crowded.
AT_ONCE_SECONDS = 5.0

_POLL_SECONDS = 0.1

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


def write_config(model_dir: Path, config: Any) -> None:
    """Replace the file that the servers read when they start, and poll.

    Raises:
        ValueError: the configuration names no model; that would unload everything.
    """
    if not config.model_config_list.config:
        raise ValueError("an empty model configuration would unload every model")
    write_atomically(model_dir / CONFIG_FILE, text_format.MessageToString(config))


def with_model(
    config: Any, unit: str, base_path: Path, versions: Collection[int], labels: Mapping[str, int]
) -> Any:
    """Return a copy of `config` in which `unit` has exactly these versions and labels.

    Without versions the model is left out: a server that finds none of a model's versions on its
    disk unloads it, and reports an error at every poll.
    """
    changed = pb.model_server_config_pb2.ModelServerConfig()
    changed.CopyFrom(config)
    models = changed.model_config_list.config
    others = [m for m in models if m.name != unit]
    if not versions:
        del models[:]
        models.extend(others)
        return changed
    model = next((m for m in models if m.name == unit), None) or models.add(name=unit)
    model.base_path = str(base_path)
    model.model_platform = "tensorflow"
    model.model_version_policy.specific.versions[:] = sorted(set(versions))
    model.version_labels.clear()
    for label, version in labels.items():
        if version in versions:
            model.version_labels[label] = version
    return changed


def configured_versions(config: Any, unit: str) -> frozenset[int]:
    """Return the versions of a unit that the configuration loads."""
    for model in config.model_config_list.config:
        if model.name == unit:
            return frozenset(model.model_version_policy.specific.versions)
    return frozenset()


def configured_labels(config: Any, unit: str) -> dict[str, int]:
    """Return the labels of a unit."""
    for model in config.model_config_list.config:
        if model.name == unit:
            return dict(model.version_labels)
    return {}


def versions_on_disk(model_dir: Path, unit: str) -> frozenset[int]:
    """Return the versions of a unit that the model servers' disk holds whole."""
    folder = model_dir / unit
    if not folder.is_dir():
        return frozenset()
    return frozenset(int(p.name) for p in folder.iterdir() if p.name.isdigit() and p.is_dir())


def without_missing(config: Any, model_dir: Path) -> Any:
    """Return a copy of `config` without versions that the disk does not hold.

    One missing folder would abort a server's poll for every model.
    """
    kept = config
    for model in list(config.model_config_list.config):
        on_disk = configured_versions(config, model.name) & versions_on_disk(model_dir, model.name)
        labels = configured_labels(config, model.name)
        kept = with_model(kept, model.name, Path(model.base_path), on_disk, labels)
    return kept


def send_config(settings: Settings, config: Any, seconds: float) -> None:
    """Write the configuration and send it to every replica; if one refuses, put all back.

    Raises:
        ServiceError: a replica did not take it; the message names it.
    """
    former = read_config(settings.model_dir)
    write_config(settings.model_dir, config)
    sent: list[Replica] = []
    try:
        for replica in settings.tf_serving:
            sent.append(replica)
            with ModelServer(replica, Patience.STEP) as server:
                server.reload(config, seconds)
    except Exception:
        if former.model_config_list.config:
            write_config(settings.model_dir, former)
            for replica, problem in offer_config(sent, former, AT_ONCE_SECONDS).items():
                # It reads the file, which is put back, when it polls.
                log.warning("%s: could not put back the configuration: %s", replica.grpc, problem)
        raise


def offer_config(replicas: Sequence[Replica], config: Any, seconds: float) -> dict[Replica, str]:
    """Send the configuration to each replica; returns what went wrong with which."""

    def offer(replica: Replica) -> str | None:
        with ModelServer(replica, Patience.STEP) as server:
            try:
                server.reload(config, seconds)
            except ServiceError as error:
                return str(error)
        return None

    # At the same time: one that hangs must not keep the others waiting.
    with ThreadPoolExecutor(max(1, len(replicas))) as pool:
        problems = dict(zip(replicas, pool.map(offer, replicas), strict=True))
    return {replica: problem for replica, problem in problems.items() if problem}


def offer_nothing(settings: Settings) -> dict[Replica, str]:
    """Let every replica serve nothing, as before the first release; returns what went wrong."""
    write_atomically(settings.model_dir / CONFIG_FILE, "model_config_list {\n}\n")
    problems = {}
    for replica in settings.tf_serving:
        with ModelServer(replica, Patience.STEP) as server:
            try:
                server.unload_everything(AT_ONCE_SECONDS)
            except ServiceError as error:
                problems[replica] = str(error)
    return problems


def wait_available(
    settings: Settings, unit: str, versions: Collection[int], seconds: float
) -> None:
    """Wait until every replica has the versions AVAILABLE.

    Raises:
        ServiceError: a replica does not answer.
        ReleaseError: a replica failed to load one, or the time is over; the message names it.
    """
    deadline = Deadline(seconds)
    for replica in settings.tf_serving:
        with ModelServer(replica, Patience.STEP) as server:
            for version in versions:
                _wait_for(server, unit, version, deadline)


def _wait_for(server: ModelServer, unit: str, version: int, deadline: Deadline) -> None:
    address = server.replica.grpc
    while True:
        state, message = server.versions(unit).get(version, ("not known", ""))
        if state == "AVAILABLE":
            return
        if state == "END" and message:
            raise ReleaseError(
                f"model server at {address} could not load {unit} {version}: {message}"
            )
        if deadline.is_over:
            raise ReleaseError(
                f"model server at {address}: {unit} {version} is {state} after "
                f"{deadline.waited:.0f} s, not AVAILABLE {message}".rstrip()
            )
        time.sleep(_POLL_SECONDS)
