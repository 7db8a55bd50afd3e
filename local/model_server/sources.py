"""Which versions a model ought to have: version policies, and the poll of the file system."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local.model_server.config import ModelConfig

_log = logging.getLogger(__name__)
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class LatestVersions:
    """Serve the highest ``count`` versions on disk."""

    count: int = 1


@dataclass(frozen=True)
class AllVersions:
    """Serve every version on disk."""


@dataclass(frozen=True)
class SpecificVersions:
    """Serve these versions, as far as they are on disk."""

    versions: frozenset[int]


VersionPolicy = LatestVersions | AllVersions | SpecificVersions


def parse_version(name: str) -> int | None:
    """Return the version a directory name stands for (int64, leading zeros allowed), or None.

    ``7.tmp`` is None: a version staged under such a name is invisible until it is renamed.
    """
    if not re.fullmatch(r"-?[0-9]+", name):
        return None
    version = int(name)
    return version if version in _INT64 else None


def choose_versions(children: Iterable[str], policy: VersionPolicy) -> dict[int, str]:
    """Return the versions to serve and the directory name of each.

    Of two names for one version (``1`` and ``01``) the last in string order wins, as in
    ``file_system_storage_path_source.cc``.
    """
    names: dict[int, str] = {}
    for name in sorted(children):
        version = parse_version(name)
        if version is not None:
            names[version] = name
    if isinstance(policy, SpecificVersions):
        return {version: names[version] for version in names if version in policy.versions}
    if isinstance(policy, LatestVersions):
        return {version: names[version] for version in sorted(names)[-policy.count :]}
    return names


class VersionPoller:
    """Looks at the base paths and tells ``aspire`` which versions each model ought to have.

    ``aspire(model, {version: directory})`` is called for every model at every poll; an empty
    mapping means that nothing of the model is to stay loaded. A base path that cannot be read
    leaves the model as it is (and, unlike in the real server, leaves the other models alone).
    """

    def __init__(
        self, aspire: Callable[[str, Mapping[int, Path]], None], wait_seconds: int
    ) -> None:
        self._aspire = aspire
        self._wait_seconds = wait_seconds
        self._models: tuple[ModelConfig, ...] = ()
        self._said: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="version-poll", daemon=True)

    def start(self) -> None:
        """Begin to poll, unless the interval says once or never."""
        if self._wait_seconds > 0:
            self._thread.start()

    def close(self) -> None:
        """Stop polling."""
        self._stopped.set()

    def update(self, models: Sequence[ModelConfig]) -> None:
        """Replace the list of models: those left out lose all versions; poll the rest at once."""
        with self._lock:
            dropped = {model.name for model in self._models} - {model.name for model in models}
            self._models = tuple(models)
            for name in sorted(dropped):
                self._say(name, "")
                self._aspire(name, {})
            if self._wait_seconds >= 0:
                self._poll()

    def _run(self) -> None:
        while not self._stopped.wait(self._wait_seconds):
            with self._lock:
                self._poll()

    def _poll(self) -> None:
        for model in self._models:
            try:
                children = [child.name for child in model.base_path.iterdir()]
            except OSError as error:
                self._say(model.name, f"could not read base path {model.base_path}: {error}")
                continue
            chosen = choose_versions(children, model.policy)
            self._say(model.name, _remark(model, chosen))
            self._aspire(
                model.name, {version: model.base_path / name for version, name in chosen.items()}
            )

    def _say(self, model: str, remark: str) -> None:
        """Log a remark when it is new: the poll sees the same thing every second."""
        if remark and remark != self._said.get(model):
            _log.warning("model %s: %s", model, remark)
        self._said[model] = remark


def _remark(model: ModelConfig, chosen: Mapping[int, str]) -> str:
    missing: list[int] = []
    if isinstance(model.policy, SpecificVersions):
        missing = sorted(model.policy.versions - chosen.keys())
    if not chosen:
        return f"no versions to serve under {model.base_path} (a version is a numbered directory)"
    return f"versions {missing} are asked for but not under {model.base_path}" if missing else ""
