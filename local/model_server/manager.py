"""The life cycle of model versions: load with retries, serve, unload when nobody uses them."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from local.model_server.errors import Code, ServingError
from local.model_server.policy import Action, Snapshot, State, Verb, next_action

_log = logging.getLogger(__name__)
_REMIND_SECONDS = 30.0


class Servable(Protocol):
    """What a manager can hold."""

    def close(self) -> None:
        """Free the resources."""


S = TypeVar("S", bound=Servable)
Loader = Callable[[str, int, Path], S]


@dataclass(frozen=True)
class VersionStatus:
    """What GetModelStatus says of one version; ``error`` is the reason of a failed END."""

    version: int
    state: State
    error: ServingError | None = None


@dataclass
class _Version(Generic[S]):
    version: int
    path: Path
    aspired: bool = True
    state: State = State.START
    failures: int = 0
    error: ServingError | None = None
    servable: S | None = None
    users: int = 0
    retry: threading.Timer | None = None


class Manager(Generic[S]):
    """Holds the versions of all models and moves each through its states. Thread-safe.

    Args:
        load: makes a servable of (model, version, directory); raises ServingError.
        retries: further attempts after a failed load, before the version ENDs with the error.
        retry_seconds: pause before each.
        load_threads: versions loaded at the same time.
        unload_threads: versions unloaded at the same time.
    """

    def __init__(
        self,
        load: Loader[S],
        *,
        retries: int = 5,
        retry_seconds: float = 60.0,
        load_threads: int = 2,
        unload_threads: int = 1,
    ) -> None:
        self._load = load
        self._retries = retries
        self._retry_seconds = max(retry_seconds, 0.0)
        self._models: dict[str, dict[int, _Version[S]]] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._loads = ThreadPoolExecutor(load_threads, "load")
        self._unloads = ThreadPoolExecutor(max(unload_threads, 1), "unload")

    def set_aspired(self, model: str, paths: Mapping[int, Path]) -> None:
        """Say which versions of ``model`` ought to be served, and start to make it so."""
        with self._changed:
            known = self._models.setdefault(model, {})
            for version, path in paths.items():
                record = known.get(version)
                if record is None or (record.state is State.END and not record.aspired):
                    known[version] = _Version(version, path)
                else:
                    record.aspired = True
            for version in known.keys() - paths.keys():
                self._drop(model, known[version])
            self._advance(model)

    @contextmanager
    def use(self, model: str, version: int | None = None) -> Iterator[tuple[int, S]]:
        """Hold a version (None: the highest AVAILABLE) while a request runs on it.

        An unload waits until the last holder lets go.

        Raises:
            ServingError: NOT_FOUND when no such version is AVAILABLE.
        """
        with self._changed:
            record = self._find(model, version)
            record.users += 1
        try:
            assert record.servable is not None  # noqa: S101 - AVAILABLE versions have one
            yield record.version, record.servable
        finally:
            with self._changed:
                record.users -= 1
                if not record.users and record.state is State.UNLOADING:
                    self._changed.notify_all()

    def statuses(self, model: str) -> list[VersionStatus]:
        """Return all versions ever seen of ``model``, newest first, ended ones included."""
        with self._changed:
            records = sorted(self._models.get(model, {}).values(), key=lambda item: -item.version)
            return [VersionStatus(item.version, item.state, item.error) for item in records]

    def wait_until_tried(self, models: Iterable[str]) -> None:
        """Wait until each model has a version AVAILABLE, one that failed, or none to load."""
        with self._changed:
            names = list(models)
            self._changed.wait_for(lambda: self._closing or all(map(self._tried, names)))

    def wait_until_available(self, models: Iterable[str]) -> None:
        """Wait, without limit, until each model has a version AVAILABLE.

        Raises:
            ServingError: UNKNOWN when all versions of a model have failed for good; CANCELLED
                when the server stops meanwhile.
        """
        failed: list[str] = []
        with self._changed:
            for model in sorted(models):
                while not self._closing and not self._resolved(model):
                    if not self._changed.wait(_REMIND_SECONDS):
                        _log.warning("still waiting for a version of new model %s", model)
                if self._closing:
                    raise ServingError(Code.CANCELLED, "the server is stopping")
                if not self._available(model):
                    failed += [_reason(model, item) for item in self._aspired(model)]
        if failed:
            raise ServingError(
                Code.UNKNOWN,
                f"{len(failed)} model(s) did not become available: {{{''.join(failed)}}}",
            )

    def close(self) -> None:
        """Stop: no more loads, retries or waits. Loaded versions stay usable until the end."""
        with self._changed:
            self._closing = True
            for known in self._models.values():
                for record in known.values():
                    if record.retry is not None:
                        record.retry.cancel()
            self._changed.notify_all()
        self._loads.shutdown(wait=False, cancel_futures=True)
        self._unloads.shutdown(wait=False, cancel_futures=True)

    # What follows runs with the lock held, except the two jobs of the thread pools.

    def _find(self, model: str, version: int | None) -> _Version[S]:
        available = self._available(model)
        if version is None:
            if available:
                return max(available, key=lambda item: item.version)
            wanted = f"Latest({model})"
        else:
            for record in available:
                if record.version == version:
                    return record
            wanted = f"Specific({model}, {version})"
        raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")

    def _available(self, model: str) -> list[_Version[S]]:
        known = self._models.get(model, {}).values()
        return [item for item in known if item.state is State.AVAILABLE]

    def _aspired(self, model: str) -> list[_Version[S]]:
        return [item for item in self._models.get(model, {}).values() if item.aspired]

    def _tried(self, model: str) -> bool:
        aspired = self._aspired(model)
        return not aspired or bool(self._available(model)) or all(item.failures for item in aspired)

    def _resolved(self, model: str) -> bool:
        """Whether there is nothing to wait for: a version answers, or all have failed."""
        aspired = self._aspired(model)
        return bool(self._available(model)) or (
            bool(aspired) and all(item.state is State.END for item in aspired)
        )

    def _set_state(self, model: str, record: _Version[S], state: State) -> None:
        record.state = state
        reason = f" ({record.error})" if record.error else ""
        level = logging.ERROR if record.error else logging.INFO
        _log.log(level, "model %s version %d: %s%s", model, record.version, state.name, reason)
        self._changed.notify_all()

    def _drop(self, model: str, record: _Version[S]) -> None:
        """No longer aspire to a version; one that is not loaded yet ends here."""
        record.aspired = False
        waiting = record.retry is not None
        if record.retry is not None:
            record.retry.cancel()
            record.retry = None
        if record.state is State.START or waiting:
            self._set_state(model, record, State.END)

    def _advance(self, model: str) -> None:
        """Take every step that the policy allows now."""
        known = self._models[model]
        while not self._closing and (action := self._next(known)) is not None:
            record = known[action.version]
            if action.verb is Verb.LOAD:
                self._set_state(model, record, State.LOADING)
                self._loads.submit(self._try_load, model, record)
            else:
                self._set_state(model, record, State.UNLOADING)
                self._unloads.submit(self._unload, model, record)

    @staticmethod
    def _next(known: Mapping[int, _Version[S]]) -> Action | None:
        return next_action(
            Snapshot(item.version, item.aspired, item.state) for item in known.values()
        )

    def _try_load(self, model: str, record: _Version[S]) -> None:
        servable, error = None, None
        try:
            servable = self._load(model, record.version, record.path)
        except ServingError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 - logged; a load must end in some state
            _log.exception("model %s version %d: unexpected error", model, record.version)
            error = ServingError(Code.INTERNAL, f"{type(failure).__name__}: {failure}")
        with self._changed:
            if error is None:
                record.servable = servable
                self._set_state(model, record, State.AVAILABLE)
            else:
                self._failed(model, record, error)
            self._advance(model)

    def _failed(self, model: str, record: _Version[S], error: ServingError) -> None:
        record.failures += 1
        self._changed.notify_all()
        if self._closing:
            return
        if record.aspired and record.failures <= self._retries:
            _log.error(
                "model %s version %d: load failed, retry %d of %d in %g s: %s",
                model, record.version, record.failures, self._retries, self._retry_seconds, error,
            )  # fmt: skip
            record.retry = threading.Timer(self._retry_seconds, self._retry, (model, record))
            record.retry.daemon = True
            record.retry.start()
        else:
            record.error = error
            self._set_state(model, record, State.END)

    def _retry(self, model: str, record: _Version[S]) -> None:
        with self._changed:
            # A version dropped between the timer's end and this line is not to come back.
            if record.retry is not None and not self._closing:
                record.retry = None
                self._loads.submit(self._try_load, model, record)

    def _unload(self, model: str, record: _Version[S]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: record.users == 0)
            servable, record.servable = record.servable, None
        if servable is not None:
            try:
                servable.close()
            except Exception:  # noqa: BLE001 - logged; the version is gone either way
                _log.exception("model %s version %d: error in unload", model, record.version)
        del servable
        gc.collect()  # a graph is full of cycles; the memory is wanted back now, not some day
        with self._changed:
            self._set_state(model, record, State.END)
            if record.aspired:  # wanted again while it was on its way out
                self._models[model][record.version] = _Version(record.version, record.path)
            self._advance(model)


def _reason(model: str, record: _Version[S]) -> str:
    """Return the words of ``ServerCore::WaitUntilModelsAvailable``."""
    return f"{{{{name: {model} version: {record.version}}} due to error: {record.error}}}, "
