"""The process beside this one that keeps its leases alive: started, fed, and started again."""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import IO, cast

from pipelines.online import lease_keeper

#: A keeper that ends so early would end again at once.
_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """What the keeper has to know of a lease; `ms` is how long a renewal lasts."""

    url: str
    lease: str
    fence_key: str
    token: str
    fence: str
    ms: int


class KeeperProcess:
    """The keeper of this process's leases.

    It is started at the first lease, without waiting for it, and stays until this process ends.
    The URLs with their passwords go through a pipe, which no other process can read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._kept: dict[int, Kept] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def keep(self, kept: Kept) -> int:
        """Have a lease kept alive; returns the number to drop it by."""
        with self._lock:
            number = next(self._numbers)
            self._kept[number] = kept
            if self._process is None:
                self._start()
            else:
                self._tell({"number": number, **asdict(kept)})
            return number

    def drop(self, number: int) -> None:
        """Have a lease kept no longer."""
        with self._lock:
            del self._kept[number]
            self._tell({"number": number})

    def close(self) -> None:
        """End the keeper; a lease that is still held runs out."""
        with self._lock:
            process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()

    def abandon(self) -> None:
        """In a forked child: leave the keeper to the parent, whose process it is."""
        process = self._process
        if process and process.stdin and process.stderr:
            process.stdin.close()
            process.stderr.close()
            # It is no child of this process: nothing is to wait for it.
            process.returncode = 0

    def _start(self) -> None:
        try:
            self._process = process = subprocess.Popen(
                (sys.executable, "-P", lease_keeper.__file__, str(os.getpid())),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                # Ctrl-C is for the holder, which gives its leases back.
                start_new_session=True,
            )
        except OSError as error:
            # They run out, and stay ours unless somebody takes them.
            log.warning("nothing keeps leases alive: the process for it did not start: %s", error)
            return
        os.set_blocking(cast(IO[bytes], process.stdin).fileno(), False)
        threading.Thread(
            target=self._watch, args=(process, time.monotonic()), name="lease keeper", daemon=True
        ).start()
        for number, kept in self._kept.items():
            self._tell({"number": number, **asdict(kept)})

    def _tell(self, message: dict[str, object]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        line = json.dumps(message).encode() + b"\n"
        try:
            written = process.stdin.write(line)
        except BrokenPipeError:
            # It has ended; who watches it starts the next one.
            return
        if written != len(line):
            # It does not read: it was stopped. The next one gets everything.
            process.kill()

    def _watch(self, process: subprocess.Popen[bytes], started: float) -> None:
        errors = cast(IO[bytes], process.stderr).fileno()
        said = b""
        while piece := os.read(errors, 4096):
            said = (said + piece)[-4096:]
        code = process.wait()
        time.sleep(max(0.0, started + _PAUSE_SECONDS - time.monotonic()))
        with self._lock:
            if self._process is not process:
                return
            self._process = None
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            log.warning(
                "the process that keeps leases alive ended (%s)%s",
                last or f"exit code {code}",
                ": started again" if self._kept else "",
            )
            if self._kept:
                self._start()


_keeper = KeeperProcess()


def keeper_process() -> KeeperProcess:
    """Return the keeper of this process."""
    return _keeper


def _after_fork() -> None:
    global _keeper
    _keeper.abandon()
    _keeper = KeeperProcess()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _keeper.close())
