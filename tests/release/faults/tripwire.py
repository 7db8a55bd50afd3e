"""Stops a process exactly before or after one of its side effects, counted as they happen.

A side effect is what another process, or a later one, can see: a request that changes Redis or
object storage, a configuration that a model server is sent, a rename or a removal on the disk. The
lowest calls that make them are wrapped, in this process only.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

When = Literal["before", "after"]
Action = Literal["kill", "pause"]

_READING = {
    b"AUTH", b"CLIENT", b"CONFIG", b"EXISTS", b"GET", b"HELLO", b"HGET", b"HGETALL", b"HLEN",
    b"HMGET", b"INFO", b"MEMORY", b"PING", b"SELECT",
}  # fmt: skip
_SCRIPTS = {
    b"-- move the pointer": "move the pointer",
    b"-- take a lease": "take the lease",
    b"-- renew a lease": None,
    b"-- give back a lease": "give back the lease",
}
_WRITING = {
    "PutObject", "DeleteObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
}  # fmt: skip


@dataclass(frozen=True)
class Trip:
    """Where a process stops: at its `at`-th side effect (from 0) or the first so named, and how."""

    at: int | str
    when: When
    action: Action = "kill"


@dataclass
class Tripwire:
    """Counts side effects, names them to `log`, and stops at `trip`."""

    log: Path
    trip: Trip | None
    channel: Connection | None = None
    seen: int = 0
    pending: dict[int, int] = field(default_factory=dict)

    def before(self, label: str) -> int:
        """Note that a side effect is about to happen; returns its number."""
        number = self.seen
        self.seen += 1
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{label}\n")
        if self.trip and self.trip.at == label:
            self.trip = replace(self.trip, at=number)
        self._check(number, "before")
        return number

    def after(self, number: int) -> None:
        """Note that it has happened."""
        self._check(number, "after")

    def _check(self, number: int, when: When) -> None:
        if self.trip is None or (self.trip.at, self.trip.when) != (number, when):
            return
        if self.trip.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        assert self.channel is not None
        self.channel.send("paused")
        self.channel.recv()

    def around(self, label: str, call: Callable[[], Any]) -> Any:
        """Make one side effect."""
        number = self.before(label)
        result = call()
        self.after(number)
        return result


def install(tripwire: Tripwire) -> None:
    """Wrap what makes side effects."""
    _wrap_s3(tripwire)
    _wrap_redis(tripwire)
    _wrap_model_servers(tripwire)
    _wrap_disk(tripwire)


def _wrap_s3(tripwire: Tripwire) -> None:
    from botocore.endpoint import Endpoint

    make_request = Endpoint.make_request

    def wrapped(self: Any, operation: Any, request: Any) -> Any:
        if operation.name not in _WRITING:
            return make_request(self, operation, request)
        key = _general(str(request["url_path"]).lstrip("/"))
        return tripwire.around(
            f"S3: {operation.name} {key}", lambda: make_request(self, operation, request)
        )

    Endpoint.make_request = wrapped  # type: ignore[assignment, method-assign]


def _general(key: str) -> str:
    """Return a key, or a path, without what differs from one release to the next."""
    for pattern, name in ((r"\d{12}", "<version>"), (r"history/\d+", "history/<epoch>"),
                          (r"runs/.*/\d+", "runs/<date>/<attempt>")):  # fmt: skip
        key = re.sub(pattern, name, key)
    return key


def _wrap_redis(tripwire: Tripwire) -> None:
    from redis.connection import AbstractConnection

    send, read = AbstractConnection.send_packed_command, AbstractConnection.read_response

    def sending(self: Any, command: Any, check_health: bool = True) -> Any:
        data = b"".join(command) if isinstance(command, list) else command
        data = data.encode() if isinstance(data, str) else data
        label = _redis_label(data)
        if label:
            tripwire.pending[id(self)] = tripwire.before(f"Redis: {label}")
        return send(self, command, check_health)  # type: ignore[no-untyped-call]

    def reading(self: Any, *args: Any, **kwargs: Any) -> Any:
        reply = read(self, *args, **kwargs)
        number = tripwire.pending.pop(id(self), None)
        if number is not None:
            tripwire.after(number)
        return reply

    AbstractConnection.send_packed_command = sending  # type: ignore[method-assign]
    AbstractConnection.read_response = reading  # type: ignore[method-assign]


def _redis_label(data: bytes) -> str | None:
    parts = data[:8192].split(b"\r\n", 6)
    name = parts[2].upper()
    if name in _READING:
        return None
    if name == b"EVAL":
        what = next((label for mark, label in _SCRIPTS.items() if mark in data), "EVAL")
        lease = re.search(rb":lease:\{([^}]*)\}", data)
        if what is None or lease is None or what == "move the pointer":
            return what
        guarded = lease.group(1).decode()
        return f"{what} of {'the unit' if guarded.endswith(':live') else _general(guarded)}"
    arguments = parts[4].decode().split(":") if len(parts) > 4 else []
    where = arguments[2] if len(arguments) > 3 else ""
    return f"{name.decode()} {where}".strip()


def _wrap_model_servers(tripwire: Tripwire) -> None:
    from pipelines.online.tf_serving import ModelServer

    reload = ModelServer.reload
    replicas: list[str] = []

    # Some reloads are made at the same time: the first to begin is of the first, whichever it is.
    naming = threading.Lock()

    def wrapped(self: Any, config: Any, seconds: float) -> None:
        with naming:
            if self.replica.grpc not in replicas:
                replicas.append(self.replica.grpc)
            place = replicas.index(self.replica.grpc) + 1
            number = tripwire.before(f"model server {place}: reload")
        reload(self, config, seconds)
        tripwire.after(number)

    ModelServer.reload = wrapped  # type: ignore[method-assign]


def _wrap_disk(tripwire: Tripwire) -> None:
    rename, rmtree = Path.rename, shutil.rmtree

    def renaming(self: Path, target: Any) -> Any:
        if tripwire.log.parent in self.parents:
            return rename(self, target)
        label = f"disk: rename to {_general(Path(target).name)}"
        return tripwire.around(label, lambda: rename(self, target))

    def removing(path: Any, *args: Any, **kwargs: Any) -> None:
        if str(path).endswith(".removed") and Path(path).exists():
            label = f"disk: remove {_general(Path(path).name)}"
            tripwire.around(label, lambda: rmtree(path, *args, **kwargs))
        else:
            rmtree(path, *args, **kwargs)

    Path.rename = renaming  # type: ignore[method-assign]
    shutil.rmtree = removing  # type: ignore[assignment]
