"""Redis refuses, vanishes, runs out of memory or comes back empty, in every step that uses it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import redis

from pipelines.errors import ReleaseError
from pipelines.release.context import ReleaseContext
from pipelines.release.restore import reconcile
from tests.release.faults.conftest import World, check_answers
from tests.release.faults.outcomes import Outcomes, noted
from tests.release.faults.steps import UNIT, run_in
from tests.release.faults.tripwire import Trip, When
from tests.release.versions import RUNNER
from tests.services import RedisServer

pytestmark = pytest.mark.timeout(1200)

_TABLES = "Redis: HSET item_features"
_MOVE = "Redis: move the pointer"
_RELEASE = ("build", "stage", "activate")


class Broken:
    """A Redis that can be made to fail, and is put right at the end of each fault."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    def command(self, *arguments: object) -> None:
        """Send one command as the administrator does."""
        with redis.Redis.from_url(self.server.url) as client:
            client.execute_command(*arguments)

    def deny(self, command: str) -> None:
        """Take a command from the user that Ferry is."""
        self.command("ACL", "SETUSER", "default", f"-{command}")

    def need_replicas(self) -> None:
        """Refuse every write, as a primary does that has lost its replicas."""
        self.command("CONFIG", "SET", "min-replicas-to-write", 1)

    def leave_memory(self, more: int) -> None:
        """Let it hold only so many bytes more, or less, than it does now.

        Exactly what it holds would not do: this very connection is part of that.
        """
        with redis.Redis.from_url(self.server.url) as client:
            used = int(client.info("memory")["used_memory"])
        self.command("CONFIG", "SET", "maxmemory", used + more)

    def empty(self) -> None:
        """Let it lose everything, as one without a disk does when it starts again."""
        self.server.kill()
        for path in self.server.log.parent.glob("appendonly*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.server.start()

    @contextmanager
    def mended(self) -> Iterator[None]:
        """Put everything right after the block; its settings are those of the start again."""
        with redis.Redis.from_url(self.server.url) as client:
            maxmemory = client.config_get("maxmemory")["maxmemory"]
        try:
            yield
        finally:
            if self.server.process.poll() is not None:
                self.server.start()
            self.command("ACL", "SETUSER", "default", "+@all")
            self.command("CONFIG", "SET", "min-replicas-to-write", 0)
            self.command("CONFIG", "SET", "maxmemory", maxmemory)


class Fault(NamedTuple):
    """One fault: brought about before `step`, or while it is stopped at a side effect."""

    step: str
    name: str
    act: Callable[[Broken], None]
    at: str | None = None
    when: When = "before"
    rerun: tuple[str, ...] = _RELEASE


_FAULTS = [
    Fault("stage", "refuses HSET (ACL)", lambda r: r.deny("hset")),
    Fault("stage", "refuses writes (no replicas)", Broken.need_replicas),
    Fault("stage", "vanishes half-way through the tables", lambda r: r.server.kill(), _TABLES),
    Fault("stage", "vanishes before a reload", lambda r: r.server.kill(), "model server 2: reload"),
    Fault("stage", "out of memory half-way through the tables",
          lambda r: r.leave_memory(-250_000), _TABLES),
    Fault("stage", "too little memory from the start", lambda r: r.leave_memory(1000)),
    Fault("activate", "refuses EVAL (ACL)", lambda r: r.deny("eval")),
    Fault("activate", "refuses writes (no replicas)", Broken.need_replicas),
    Fault("activate", "refuses the move of the pointer (ACL)", lambda r: r.deny("eval"), _MOVE),
    Fault("activate", "vanishes before the pointer moves", lambda r: r.server.kill(), _MOVE),
    Fault("activate", "vanishes between the pointer's move and its commit",
          lambda r: r.server.kill(), _MOVE, "after"),
    Fault("activate", "lost everything since it was staged",
          lambda r: r.command("FLUSHALL"), rerun=("build", "stage", "activate", "restore")),
    Fault("rollback", "vanishes before the pointer moves", lambda r: r.server.kill(), _MOVE),
    Fault("rollback", "vanishes between the pointer's move and its commit",
          lambda r: r.server.kill(), _MOVE, "after"),
]  # fmt: skip


def test_redis_fails(make_world: Callable[..., World], mortal_redis: RedisServer) -> None:
    world = make_world(redis_url=mortal_redis.url)
    outcomes, broken = Outcomes(world), Broken(mortal_redis)
    for fault in _FAULTS:
        with noted(f"{fault.step}: {fault.name}"):
            _bring_about(fault, outcomes, broken)
    with noted("it comes back empty"):
        _lose_everything(outcomes, broken)
    outcomes.check("Redis fails")


def _bring_about(fault: Fault, outcomes: Outcomes, broken: Broken) -> None:
    world = outcomes.world
    is_rollback = fault.step == "rollback"
    former = world.begin(upto=None if is_rollback else fault.step)
    attempted = world.call("build").version
    with broken.mended():
        if fault.at:
            trip = Trip(fault.at, fault.when, "pause")
            error = outcomes.fail(fault.step, trip, lambda: fault.act(broken))
        else:
            fault.act(broken)
            error = outcomes.fail(fault.step)
        if broken.server.process.poll() is not None:
            # Nothing can be read while it is down: what is live shows when it is back.
            broken.server.start()
            meanwhile = "Redis is down; then "
        else:
            meanwhile = ""
        if error.startswith("CapacityError"):
            assert not _rows(world), "something was written"
        meanwhile += _live(outcomes, former, attempted, is_rollback=is_rollback)
    if is_rollback:
        run_in(world.context, world.call("rollback"))
        reconcile(world.context, UNIT, RUNNER)
        assert outcomes.live(former, attempted) == "the old"
        world.check_settled()
        rerun = "the version before is live, and whole"
    else:
        world.finish(*fault.rerun)
        rerun = "the new is live, and whole"
    outcomes.add(fault.step, fault.name, error, meanwhile, rerun)


def _rows(world: World) -> int:
    """Return how many rows of the attempt's version are in Redis."""
    manifest = world.context.registry.sealed(UNIT, world.call("build").version)
    return sum(
        world.context.online.count_rows(UNIT, manifest.version, meta) for meta in manifest.tables
    )


def _live(outcomes: Outcomes, former: int, attempted: int, *, is_rollback: bool) -> str:
    context = outcomes.world.context
    if context.online.pointers.get(UNIT) is None:
        _refused(context)
        return "nothing: readers are told to restore"
    live = outcomes.live(former, attempted)
    if is_rollback:
        return "the version before" if live == "the old" else "the version that is rolled back"
    return live


def _refused(context: ReleaseContext) -> str:
    """Return what a reader is told where nothing is live."""
    with pytest.raises(ReleaseError, match=f"ferry restore {UNIT}") as caught:
        check_answers(context)
    return f"{caught.type.__name__}: {caught.value}"


def _lose_everything(outcomes: Outcomes, broken: Broken) -> None:
    world = outcomes.world
    world.begin()
    live = world.call("build").version
    broken.empty()
    error = _refused(world.context)
    run_in(world.context, world.call("restore"))
    assert world.check_whole(live) == live
    world.check_settled()
    meanwhile, rerun = (
        "nothing: readers are told to restore",
        "restore: the same is live, and whole",
    )
    outcomes.add("after a release", "comes back empty", error, meanwhile, rerun)
