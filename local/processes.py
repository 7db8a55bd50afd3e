"""A group of processes that runs detached from the terminal, under honcho and a Procfile.

What was started is written down with its start time, so that a process id that the system has
since given to another program is never taken for ours. If one process of a group ends, honcho
ends the others: a group runs as a whole or not at all. A command may ask to be started again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from local.commands import Command
from local.environment import Schedule, process_environment
from local.home import Home, write_private
from pipelines.config import PROJECT_ROOT

#: Start times are derived from the system clock, which may have been adjusted in between.
_CLOCK_TOLERANCE_SECONDS = 5.0
_STOP_SECONDS = 20.0
_LOG_BYTES_KEPT = 10_000_000


class _Started(BaseModel):
    model_config = ConfigDict(frozen=True)

    pid: int
    at: float

    @classmethod
    def of(cls, process: psutil.Process) -> _Started:
        return cls(pid=process.pid, at=process.create_time())

    def find(self) -> psutil.Process | None:
        """Return the process if it is still the one that was started."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.at) > _CLOCK_TOLERANCE_SECONDS:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.NoSuchProcess:
            return None


class Record(BaseModel):
    """What runs as one group."""

    model_config = ConfigDict(frozen=True)

    manager: _Started
    #: All processes below the manager once the group was healthy. They outlive a manager that was
    #: killed, and must be found then.
    members: tuple[_Started, ...] = ()
    fingerprint: str
    schedule: Schedule | None = None


def fingerprint(commands: Sequence[Command], env: Mapping[str, str], *files: Path) -> str:
    """Return a digest of all that the group's behaviour depends on."""
    content = json.dumps(
        [
            [(c.argv, dict(c.env), c.restart_after) for c in commands],
            dict(env),
            [f.read_text() for f in files],
        ],
        sort_keys=True,
    )
    return hashlib.sha256(content.encode()).hexdigest()


def _shell_line(command: Command, log: Path) -> str:
    """Return how a shell runs the command, with what it prints in `log`."""
    to_log = f">>{shlex.quote(str(log))} 2>&1"
    run = f"{shlex.join(command.argv)} {to_log}"
    if command.restart_after is None:
        return f"exec {run}"
    # honcho signals all processes of the line; the shell has to outlive the program.
    return (
        "stopped=; trap stopped=1 TERM INT; "
        f"while began=$(date +%s); ! {run}; do "
        f'[ "$stopped" ] || [ $(($(date +%s) - began)) -lt {command.restart_after} ] && exit 1; '
        f"echo {shlex.quote(command.name)} failed and is started again {to_log}; done"
    )


class Group:
    """The processes `name` of `home`."""

    def __init__(self, home: Home, name: str) -> None:
        self.name = name
        self._home = home
        self._record_file = home.run / f"{name}.json"
        self._manager_log = home.logs / f"{name}.log"

    def record(self) -> Record | None:
        """Return what was started last (it may have ended since)."""
        try:
            return Record.model_validate_json(self._record_file.read_text())
        except FileNotFoundError:
            return None

    def is_running(self) -> bool:
        """Return whether the group's manager is alive."""
        record = self.record()
        return record is not None and record.manager.find() is not None

    def start(
        self,
        commands: Sequence[Command],
        env: Mapping[str, str],
        fingerprint: str,
        schedule: Schedule | None = None,
    ) -> None:
        """Start the group; it is not healthy yet when this returns."""
        procfile = self._home.run / f"{self.name}.procfile"
        lines = []
        environment = {**process_environment(), **env}
        for command in commands:
            environment |= command.env
            log = self.log(command.name)
            _trim(log)
            lines.append(f"{command.name}: {_shell_line(command, log)}\n")
        procfile.write_text("".join(lines))
        # honcho would take these two for itself.
        for name in ("PROCFILE", "PORT"):
            environment.pop(name, None)
        with self._manager_log.open("wb") as output:
            manager = subprocess.Popen(
                (
                    *(sys.executable, "-m", "honcho", "--app-root", str(self._home.run)),
                    *("start", "--procfile", procfile.name, "--no-colour"),
                ),
                cwd=PROJECT_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = _Started.of(psutil.Process(manager.pid))
        self._write(Record(manager=started, fingerprint=fingerprint, schedule=schedule))

    def note_members(self) -> None:
        """Write down the processes of the group, now that all of them have been started."""
        record = self.record()
        manager = record.manager.find() if record else None
        if record and manager:
            members = tuple(_Started.of(child) for child in manager.children(recursive=True))
            self._write(record.model_copy(update={"members": members}))

    def stop(self) -> bool:
        """Stop the group and whatever is left of it; return whether anything was running."""
        record = self.record()
        if record is None:
            return False
        processes: set[psutil.Process] = set()
        for started in (record.manager, *record.members):
            if process := started.find():
                processes |= {process, *_children(process)}
        manager = record.manager.find()
        # honcho passes the signal on to its children, and waits; if it is gone, we do.
        for process in [manager] if manager else processes:
            _signal(process, "terminate")
        _, left = psutil.wait_procs(processes, timeout=_STOP_SECONDS)
        for process in left:
            _signal(process, "kill")
        psutil.wait_procs(left, timeout=_STOP_SECONDS)
        self._record_file.unlink(missing_ok=True)
        return bool(processes)

    def log(self, command: str) -> Path:
        """Return the log of one process of the group."""
        return self._home.logs / f"{command}.log"

    def first_to_stop(self) -> str | None:
        """Return which process ended first, if one did since the group was started."""
        text = self._manager_log.read_text(errors="replace")
        found = re.search(r"system\s*\| (\S+)\.1 stopped \(rc=", text)
        return found[1] if found else None

    def _write(self, record: Record) -> None:
        write_private(self._record_file, record.model_dump_json(indent=2))


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, action: str) -> None:
    try:
        getattr(process, action)()
    except psutil.NoSuchProcess:
        # It ended by itself between our look and our signal.
        return


def _trim(log: Path) -> None:
    """Set a log aside when it has grown; the one before is dropped."""
    if log.exists() and log.stat().st_size > _LOG_BYTES_KEPT:
        log.replace(log.with_suffix(".old.log"))


@contextmanager
def exclusive(home: Home, name: str) -> Iterator[bool]:
    """Hold the lock `name` while the block runs; yields False if another process has it."""
    with (home.run / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
