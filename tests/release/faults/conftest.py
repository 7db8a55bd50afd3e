"""Two replicas, a Redis that may be killed, and processes that stop where they are told to."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from local import commands, health
from local.home import HOST
from pipelines.config import Settings
from pipelines.errors import FerryError
from pipelines.online.client import FerryClient
from pipelines.patience import patient
from pipelines.release.audit import audit
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.restore import reconcile
from pipelines.run import parse_version
from tests.release.faults.steps import CONFIG, UNIT, Call, main, run_in
from tests.release.faults.tripwire import Trip
from tests.release.versions import RUNNER, live_version, release, weight
from tests.services import ModelServer, RedisServer, new_redis, running

_SECONDS = 60.0
#: Between two looks at something: leaves the processors to what is tested.
_PAUSE_SECONDS = 0.01


@pytest.fixture(scope="session")
def mortal_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that tests kill and start again."""
    yield from running(new_redis(tmp_path_factory.mktemp("mortal_redis")))


@pytest.fixture(scope="session")
def second_replica(
    model_server_session: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    """A second model server over the first one's disk."""
    first = model_server_session
    grpc_port, rest_port = health.free_ports(2)
    server = ModelServer(
        commands.model_server_command(first.config_file, grpc_port, rest_port),
        tmp_path_factory.mktemp("second_replica") / "log",
        lambda: health.model_server_answers(grpc_port, rest_port),
        grpc_port,
        rest_port,
        first.model_dir,
        first.config_file,
    )
    yield from running(server)


@dataclass
class World:
    """A unit with a version that is live, and all that is needed to release the next one."""

    context: ReleaseContext
    folder: Path
    models: Path
    attempt: int = 0
    environment: dict[str, str] | None = None
    serial: int = 0

    def call(self, step: str) -> Call:
        """Return the call of a step for the current attempt."""
        environment = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
        return Call(
            step, self.context.settings, environment, self.folder, self.models, self.attempt
        )

    def begin(self, *, upto: str | None = None) -> int:
        """Start the next attempt, its steps before `upto` done; returns the version live now."""
        live = live_version(self.context, UNIT)
        assert live is not None
        self.attempt += 1
        for step in ("build", "stage", "activate"):
            if step == upto:
                break
            run_in(self.context, self.call(step))
        return live

    def spawn(self, step: str, trip: Trip | None = None) -> tuple[BaseProcess, Path, Connection]:
        """Start a process that makes a step; returns it, its log, and a channel to it."""
        self.serial += 1
        log = self.folder / f"effects-{self.serial}.log"
        log.touch()
        process_context = multiprocessing.get_context("forkserver")
        process_context.set_forkserver_preload(["pandas", main.__module__])
        ours, theirs = process_context.Pipe()
        process = process_context.Process(target=main, args=(self.call(step), log, trip, theirs))
        process.start()
        theirs.close()
        return process, log, ours

    def run(
        self, step: str, trip: Trip | None = None, while_paused: Callable[[], None] | None = None
    ) -> tuple[int | None, list[str], str | None]:
        """Make a step in a process; returns its exit code, side effects and error."""
        process, log, channel = self.spawn(step, trip)
        if while_paused:
            assert channel.poll(patient(_SECONDS)), (
                f"{step} never came to {trip}: {log.read_text()}"
            )
            channel.recv()
            while_paused()
            channel.send("go on")
        process.join(patient(_SECONDS))
        assert process.exitcode is not None, f"{step} hangs; it did:\n{log.read_text()}"
        error = log.with_suffix(".error")
        message = error.read_text(encoding="utf-8") if error.exists() else None
        return process.exitcode, log.read_text().splitlines(), message

    def check_whole(self, *allowed: int | None) -> int | None:
        """Assert that what is live is one of `allowed` and whole; returns it. None is nothing."""
        context = replace(self.context, client=FerryClient(self.context.settings))
        try:
            live = live_version(context, UNIT)
            assert live in allowed, f"{live} is live, not one of {allowed}"
            if live is None:
                with pytest.raises(FerryError, match=OFFLINE):
                    check_answers(context)
            else:
                check_answers(context)
            return live
        finally:
            context.client.close()

    def finish(self, *steps: str) -> None:
        """Make the steps again as a rerun does: the attempt is live, whole, and nothing is left."""
        for step in steps:
            run_in(self.context, self.call(step))
        assert live_version(self.context, UNIT) == self.call("build").version
        self.check_settled()

    def check_settled(self) -> None:
        """Assert that every place agrees on what is live, and nothing is left to do."""
        assert reconcile(self.context, UNIT, RUNNER) == []
        self.audit()

    def let_leases_run_out(self) -> None:
        """Let the time pass that a killed process still holds its leases, without waiting for it.

        Its keeper ends by itself; until then it may renew them.
        """
        online = self.context.online
        while held := list(online._redis.scan_iter(f"{online.prefix}:lease:*")):
            for lease in held:
                online._redis.pexpire(lease, 1)
            time.sleep(_PAUSE_SECONDS)

    def audit(self) -> None:
        """Assert that every row, artifact and answer of what is live is right everywhere."""
        audit(self.context, UNIT)


#: What readers are told of a unit of which nothing is live.
OFFLINE = f"nothing of {UNIT} is live"


def check_answers(context: ReleaseContext) -> None:
    """Assert that a reader gets features and score of the version that the pointer names."""
    answer = context.client.rank("1", ["2"], "tf_serving")
    _, attempt = parse_version(answer.version)
    assert answer.note is None, answer.note
    assert answer.items[0].score == pytest.approx(3.5 * weight(attempt))


class Reader:
    """Reads again and again, as a client does, until it is stopped; keeps what went wrong.

    That nothing is live is wrong unless it `may_be_offline`.
    """

    def __init__(self, settings: Settings, *, may_be_offline: bool = False) -> None:
        self._settings = settings
        self._may_be_offline = may_be_offline
        self._stop = threading.Event()
        self.reads = 0
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with FerryClient(self._settings) as client:
            while not self._stop.is_set():
                try:
                    answer = client.rank("1", ["2"], "tf_serving")
                except FerryError as error:
                    if not (self._may_be_offline and OFFLINE in str(error)):
                        self.errors.append(str(error))
                    continue
                _, attempt = parse_version(answer.version)
                if answer.items[0].score != pytest.approx(3.5 * weight(attempt)) or answer.note:
                    self.errors.append(f"{answer}")
                self.reads += 1
                time.sleep(_PAUSE_SECONDS)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None:
            assert self.reads > 0
            assert self.errors == []


@pytest.fixture
def make_world(
    settings_for: Callable[..., Settings],
    second_replica: ModelServer,
    model_server: ModelServer,
    models: Path,
    tmp_path: Path,
) -> Iterator[Callable[..., World]]:
    """Return a function that makes a world; it takes fields of Settings to override."""
    opened = []

    def make(**overrides: object) -> World:
        replicas = ",".join(
            f"{HOST}:{server.grpc_port}:{server.rest_port}"
            for server in (model_server, second_replica)
        )
        settings = settings_for(**{"tf_serving": replicas, **overrides})
        manager = release_context(settings, CONFIG, "a test")
        context = manager.__enter__()
        opened.append(manager)
        world = World(context, tmp_path, models)
        world.attempt = 1
        release(context, tmp_path, UNIT, world.attempt, models)
        return world

    yield make
    for manager in opened:
        manager.__exit__(None, None, None)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world whose first version is live."""
    return make_world()
