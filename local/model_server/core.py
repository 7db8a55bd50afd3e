"""The server behind both APIs: the config in force, labels, and the models it keeps loaded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from local.model_server import config
from local.model_server.errors import Code, ServingError, invalid
from local.model_server.manager import Manager, VersionStatus
from local.model_server.policy import State
from local.model_server.saved_model import SavedModel
from local.model_server.sources import VersionPoller

_log = logging.getLogger(__name__)
Labels = dict[str, dict[str, int]]


@dataclass(frozen=True)
class ModelRef:
    """The model a request names: a version, a label, or neither (the highest AVAILABLE one)."""

    name: str
    version: int | None = None
    label: str | None = None


class ServerCore:
    """Applies configs and resolves requests (``model_servers/server_core.cc``)."""

    def __init__(
        self,
        manager: Manager[SavedModel],
        poller: VersionPoller,
        *,
        allow_labels_for_unavailable: bool = False,
    ) -> None:
        self._manager = manager
        self._poller = poller
        self._allow_unavailable = allow_labels_for_unavailable
        self._labels: Labels = {}
        self._models: tuple[str, ...] = ()
        self._reload_lock = threading.Lock()

    def reload(self, new: ModelServerConfig, *, wait: bool = True) -> None:
        """Replace the whole config: what ``new`` does not list is unloaded.

        The order is the real server's: validate, swap the labels, update the sources, wait. So
        one call cannot load a version and label it, and labels stay swapped when a later step
        fails. The wait is for new model names only; it has no limit and other reloads queue
        behind it.

        Args:
            new: the config; one that sets nothing changes nothing.
            wait: False leaves out the wait.

        Raises:
            ServingError: INVALID_ARGUMENT for a bad config, FAILED_PRECONDITION for a label on a
                version that is not AVAILABLE, UNKNOWN when a new model fails to load.
        """
        with self._reload_lock:
            if new.WhichOneof("config") is None:
                return
            if new.WhichOneof("config") != "model_config_list":
                raise invalid("only model_config_list is supported")
            protos = list(new.model_config_list.config)
            config.check_list(protos)
            models = [config.model_config(proto) for proto in protos]
            self._labels = self._checked_labels(models)
            for proto in protos:
                config.check_platform(proto)
            names = tuple(model.name for model in models)
            added = set(names) - set(self._models)
            if not names and self._models:
                _log.warning("EMPTY CONFIG: unloading all models: %s", ", ".join(self._models))
            elif dropped := set(self._models) - set(names):
                _log.warning("unloading what the new config leaves out: %s", sorted(dropped))
            self._models = names
            self._poller.update(models)
            if wait:
                self._manager.wait_until_available(added)

    @contextmanager
    def use(self, ref: ModelRef) -> Iterator[tuple[int, SavedModel]]:
        """Hold the model version that ``ref`` means, as (version, model).

        Raises:
            ServingError: INVALID_ARGUMENT without a name or for an unknown label; NOT_FOUND.
        """
        if not ref.name:
            raise invalid("ModelSpec has no name specified.")
        version = ref.version
        if ref.label is not None:
            version = self._labels.get(ref.name, {}).get(ref.label)
            if version is None:
                raise invalid(f"Unrecognized servable version label: {ref.label}")
        with self._manager.use(ref.name, version) as held:
            yield held

    def statuses(self, ref: ModelRef) -> list[VersionStatus]:
        """Return the states of one version or of all, newest first; a label is ignored.

        Raises:
            ServingError: NOT_FOUND for what the server has never seen.
        """
        found = self._manager.statuses(ref.name)
        if ref.version is not None:
            found = [item for item in found if item.version == ref.version]
            if not found:
                raise ServingError(
                    Code.NOT_FOUND,
                    f"Could not find version {ref.version} of model {ref.name}",
                )
        if not found:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {ref.name}")
        return found

    def wait_until_tried(self) -> None:
        """Wait until every configured model has had its first load."""
        self._manager.wait_until_tried(self._models)

    def close(self) -> None:
        """Stop polling and loading; waits in :meth:`reload` end with CANCELLED."""
        self._poller.close()
        self._manager.close()

    def _checked_labels(self, models: list[config.ModelConfig]) -> Labels:
        labels: Labels = {}
        for model in models:
            available = {
                item.version
                for item in self._manager.statuses(model.name)
                if item.state is State.AVAILABLE
            }
            for label, version in model.labels.items():
                present = self._labels.get(model.name, {}).get(label, version)
                lenient = self._allow_unavailable and present == version
                if version not in available and not lenient:
                    raise ServingError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference",
                    )
                labels.setdefault(model.name, {})[label] = version
        return labels


class ConfigFilePoller:
    """Re-reads the model config file and applies it at every interval.

    It is applied even when unchanged, as in the real server: a label that was refused because
    its version was still loading is accepted at a later poll.
    """

    def __init__(self, core: ServerCore, path: str, wait_seconds: int) -> None:
        self._core = core
        self._path = path
        self._wait_seconds = wait_seconds
        self._said = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="config-poll", daemon=True)

    def start(self) -> None:
        """Begin to poll, unless the interval is zero."""
        if self._wait_seconds > 0:
            self._thread.start()

    def close(self) -> None:
        """Stop polling."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._wait_seconds):
            remark = ""
            try:
                self._core.reload(config.read_file(self._path))
            except ServingError as error:
                remark = str(error)
            if remark and remark != self._said:
                _log.error("config file %s not applied: %s", self._path, remark)
            self._said = remark
