from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from pipelines.config import Settings
from pipelines.errors import ReleaseError
from pipelines.online import keeper_process as keeping
from pipelines.online import leases as leases_module
from pipelines.online.leases import LeaseLostError, Leases, Taken
from pipelines.online.store import OnlineStore
from pipelines.patience import Deadline, patient
from tests.services import RedisServer

#: Long enough to be renewed in time where all cores are taken.
SECONDS = 2.0


@pytest.fixture
def leases(settings_for: Callable[..., Settings]) -> Iterator[Leases]:
    store = OnlineStore.connect(settings_for(model_server=False))
    yield store.leases
    store.close()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "LEASE_SECONDS", SECONDS)


def run_out(leases: Leases, what: str = "things") -> None:
    """Let the lease run out, as Redis does when nobody has renewed it in time."""
    leases._redis.delete(leases.key(what))


def test_a_lease_has_one_holder_who_is_named(leases: Leases) -> None:
    with (
        leases.hold("things", "run one"),
        pytest.raises(ReleaseError, match="the things is being changed by run one"),
        leases.hold("things", "run two", label="the things"),
    ):
        pass
    with leases.hold("things", "run two"):
        assert leases.holder("things") == "run two"
    assert leases.holder("things") is None


def test_others_are_not_in_the_way(leases: Leases) -> None:
    with leases.hold("things", "run one"), leases.hold("other things", "run two"):
        pass


def test_who_waits_gets_it_when_it_is_free(leases: Leases) -> None:
    free = threading.Event()

    def hold() -> None:
        with leases.hold("things", "run one"):
            free.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    while leases.holder("things") is None:
        time.sleep(0.01)
    threading.Timer(0.3, free.set).start()
    with leases.hold("things", "run two", wait=patient(5)):
        assert leases.holder("things") == "run two"
    holder.join()


def test_the_same_owner_takes_over_at_once(leases: Leases) -> None:
    with leases.hold("things", "run one") as first, leases.hold("things", "run one"):
        assert leases.holder("things") == "run one"
        with pytest.raises(LeaseLostError, match="another attempt of run one took over"):
            first.require()
        # What was taken over is not given back by the one who lost it.
    with leases.hold("things", "run two"):
        pass


@pytest.mark.parametrize(("holder", "other"), [("run 1", "run 1|2"), ("run 12", "run 1")])
def test_an_owner_whose_name_only_begins_alike_does_not(
    leases: Leases, holder: str, other: str
) -> None:
    with (
        leases.hold("things", holder),
        pytest.raises(ReleaseError, match=f"by {holder}"),
        leases.hold("things", other),
    ):
        pass


def test_without_taking_over_also_the_same_owner_waits(leases: Leases) -> None:
    with (
        leases.hold("things", "run one", take_over=False),
        pytest.raises(ReleaseError, match="by run one"),
        leases.hold("things", "run one", take_over=False),
    ):
        pass


# --- What runs out, and what is lost ---


def test_a_lease_that_ran_out_and_that_nobody_took_is_its_holders(leases: Leases) -> None:
    with leases.hold("things", "run one") as lease:
        run_out(leases)
        lease.require()
        assert leases.holder("things") == "run one"


@pytest.mark.parametrize("given_back", [False, True])
def test_a_lease_that_ran_out_and_was_taken_is_lost(leases: Leases, given_back: bool) -> None:
    with leases.hold("things", "run one") as lease:
        run_out(leases)
        taken = leases.take("things", "run two")
        if given_back:
            leases.give_back(taken)
        for _ in range(2):
            with pytest.raises(LeaseLostError, match="things: run two took over meanwhile"):
                lease.require()
    assert leases.holder("things") == (None if given_back else "run two")


def empty(leases: Leases, what: str = "things") -> None:
    """Let Redis lose what it knows of the lease."""
    leases._redis.delete(leases.key(what), leases.fence_key(what))


def let_time_pass(leases: Leases, what: str = "things") -> None:
    """Let the time of a lease pass since Redis lost it, if it did."""
    if int(leases._redis.hget(leases.fence_key(what), "sure_at") or 0):
        leases._redis.hset(leases.fence_key(what), "sure_at", 1)


@pytest.mark.usefixtures("short")
def test_a_lease_that_redis_lost_is_its_holders_when_that_is_sure(leases: Leases) -> None:
    with leases.hold("things", "run one") as lease:
        empty(leases)
        began = time.monotonic()
        lease.require()
        assert time.monotonic() - began > 0.9 * SECONDS
        assert leases.holder("things") == "run one"
        began = time.monotonic()
        lease.require()
        assert time.monotonic() - began < patient(0.5 * SECONDS)


def test_of_several_the_last_to_take_a_lease_that_redis_lost_gets_it_back(leases: Leases) -> None:
    first, second = (leases.take("things", "run one") for _ in range(2))
    empty(leases)
    assert leases.renew(first)[0] == "unsure"
    assert leases.renew(second)[0] == "unsure"
    assert leases.renew(first) == ("taken", second.token)
    let_time_pass(leases)
    assert leases.renew(second)[0] == "held"


def test_who_is_silent_for_the_time_of_a_lease_after_redis_lost_it_is_fenced_off(
    leases: Leases,
) -> None:
    first, second = (leases.take("things", "run one") for _ in range(2))
    empty(leases)
    assert leases.renew(first)[0] == "unsure"
    let_time_pass(leases)
    state, fence = leases.renew(first)
    assert state == "held"
    assert int(fence) > int(second.fence)
    assert leases.renew(second) == ("taken", first.token)


def test_a_redis_with_older_data_gives_the_lease_back_to_who_took_it_last(leases: Leases) -> None:
    older = leases.take("things", "run one")
    data: dict[str, Any] = {k: leases._redis.dump(k) for k in (older.key, older.fence_key)}
    leases.give_back(older)
    newer = leases.take("things", "run two")
    for key, value in data.items():
        leases._redis.restore(key, 30_000, value, replace=True)
    assert leases.renew(newer)[0] == "unsure"
    assert leases.renew(older) == ("taken", newer.token)


def test_a_renewal_on_its_way_does_not_bring_back_what_was_given_back(leases: Leases) -> None:
    taken = leases.take("things", "run one")
    leases.give_back(taken)
    assert leases.renew(taken) == ("ended", "")
    leases._redis.delete(leases.fence_key("things"))
    leases.give_back(taken)
    assert leases.renew(taken) == ("ended", "")
    assert leases.holder("things") is None


def test_a_redis_without_memory_renews_a_lease_and_takes_it_back(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = OnlineStore(redis_server.url, "full")
    limit = str(store._redis.config_get("maxmemory")["maxmemory"])
    with store.leases.hold("things", "run one") as lease:
        try:
            store._redis.config_set("maxmemory", 1)
            lease.require()
            store.leases.give_back(lease.taken)
            assert store.leases.holder("things") is None
            with pytest.raises(LeaseLostError, match="was given back"):
                lease.require()
        finally:
            store._redis.config_set("maxmemory", limit)
    store.close()
    assert caplog.text == ""


def test_a_lease_of_an_earlier_ferry_is_respected(leases: Leases) -> None:
    # It knew no fence.
    leases._redis.set(leases.key("things"), "run one|token")
    with (
        pytest.raises(ReleaseError, match="by run one"),
        leases.hold("things", "run two"),
    ):
        pass
    taken = leases.take("things", "run one")
    leases._redis.set(leases.key("things"), "run two|token")
    assert leases.renew(taken) == ("taken", "run two|token")


def test_the_same_request_again_is_not_counted_again(leases: Leases) -> None:
    first = leases._take("things", "run one|token", "run one|")
    second = leases._take("things", "run one|token", "run one|")
    assert first == second


class Holders(RuleBasedStateMachine):
    """Some processes, a Redis, and all that can happen to their lease.

    A process has the lease once it took it, or, where Redis lost its data, once it restored it and
    the time of a lease passed.
    """

    leases: Leases

    def __init__(self) -> None:
        super().__init__()
        empty(self.leases, "x")
        self.takes: list[Taken] = []
        self.ended: set[int] = set()
        #: Who got it last, by place in `takes`.
        self.last = -1
        #: Redis lost its data, and who got the lease last has not renewed it since.
        self.is_lost = False

    def got(self, place: int, fence: str) -> None:
        assert all(int(fence) > int(t.fence) for t in self.takes if t != self.takes[place])
        self.last, self.is_lost = place, False

    @rule(owner=st.sampled_from("ab"))
    def take(self, owner: str) -> None:
        try:
            taken = self.leases.take("x", owner)
        except ReleaseError:
            assert self.leases.holder("x") not in (None, owner)
            return
        self.takes.append(taken)
        self.got(len(self.takes) - 1, taken.fence)

    @rule()
    def run_out(self) -> None:
        run_out(self.leases, "x")

    @rule()
    def empty(self) -> None:
        empty(self.leases, "x")
        self.is_lost = True

    @rule()
    def let_time_pass(self) -> None:
        let_time_pass(self.leases, "x")

    @precondition(lambda self: len(self.ended) < len(self.takes))
    @rule(data=st.data())
    def require(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(set(range(len(self.takes))) - self.ended)))
        state, detail = self.leases.renew(self.takes[place])
        if state == "held":
            self.takes[place] = self.takes[place]._replace(fence=detail)
            if place != self.last:
                # Never while the last that got it has it.
                assert self.is_lost
                self.got(place, detail)
        if place == self.last:
            assert state in ("held", "unsure")
            self.is_lost = False

    @precondition(lambda self: len(self.ended) < len(self.takes))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(set(range(len(self.takes))) - self.ended)))
        self.leases.give_back(self.takes[place])
        self.ended.add(place)


def test_whatever_happens_only_the_last_to_take_a_lease_has_it(leases: Leases) -> None:
    class OnRedis(Holders):
        pass

    OnRedis.leases = leases
    run_state_machine_as_test(
        OnRedis, settings=hypothesis_settings(max_examples=150, stateful_step_count=25)
    )


# --- What keeps them alive ---


def keeper_of_this_process() -> subprocess.Popen[bytes]:
    process = keeping.keeper_process()._process
    assert process is not None
    return process


@pytest.mark.usefixtures("short")
def test_a_lease_is_kept_alive(leases: Leases) -> None:
    with leases.hold("things", "run one") as lease:
        with pytest.raises(ReleaseError, match="by run one"):
            leases.take("things", "run two", wait=2 * SECONDS)
        lease.require()
    assert leases.holder("things") is None


def test_a_holder_that_is_gone_is_outlived(leases: Leases, short: None) -> None:
    # As a killed process leaves it: held, and nobody renews it.
    leases.take("things", "run one")
    with leases.hold("things", "run two", wait=patient(10)):
        assert leases.holder("things") == "run two"


@pytest.mark.usefixtures("short")
def test_the_keeper_restores_what_an_emptied_redis_lost(leases: Leases) -> None:
    with leases.hold("things", "run one") as lease:
        leases._redis.delete(leases.key("things"), leases.fence_key("things"))
        deadline = Deadline(SECONDS)
        while leases.holder("things") is None:
            assert not deadline.is_over
            time.sleep(0.01)
        lease.require()


def _hold(settings: Settings, channel: Connection, seconds: float) -> None:
    """Be a process that holds a lease, keeping Python's lock for `seconds` all at once."""
    leases_module.LEASE_SECONDS = SECONDS
    store = OnlineStore.connect(settings)
    with store.leases.hold("things", "run one") as lease:
        channel.send(keeper_of_this_process().pid)
        if seconds:
            # As a native call does that does not give it back.
            ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        else:
            channel.recv()
        lease.require()
    channel.send("done")


@pytest.fixture
def holder(settings_for: Callable[..., Settings]) -> Iterator[Callable[..., Any]]:
    processes = []
    settings = settings_for(model_server=False)

    def start(seconds: float = 0.0) -> tuple[Any, Connection, int]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_hold, args=(settings, theirs, seconds))
        process.start()
        processes.append(process)
        theirs.close()
        assert ours.poll(60)
        return process, ours, ours.recv()

    yield start
    for process in processes:
        process.kill()
        process.join()


@pytest.fixture
def contender(settings_for: Callable[..., Settings]) -> Iterator[Leases]:
    store = OnlineStore.connect(settings_for(model_server=False))
    yield store.leases
    store.close()


@pytest.mark.usefixtures("short")
def test_a_holder_whose_python_stands_still_keeps_its_lease(
    holder: Callable[..., Any], contender: Leases
) -> None:
    _, channel, _ = holder(3 * SECONDS)
    with pytest.raises(ReleaseError, match="by run one"):
        contender.take("things", "run two", wait=2.5 * SECONDS)
    assert channel.poll(30)
    assert channel.recv() == "done"


@pytest.mark.usefixtures("short")
def test_a_holder_that_is_stopped_keeps_its_lease_and_one_that_is_killed_does_not(
    holder: Callable[..., Any], contender: Leases
) -> None:
    process, _, keeper = holder()
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(ReleaseError, match="by run one"):
        contender.take("things", "run two", wait=2 * SECONDS)
    process.kill()
    contender.take("things", "run two", wait=patient(10))
    deadline = Deadline(10)
    while Path(f"/proc/{keeper}").exists():
        assert not deadline.is_over, "the keeper outlives its process"
        time.sleep(0.02)


@pytest.mark.usefixtures("short")
def test_a_keeper_that_dies_is_started_again(
    leases: Leases, caplog: pytest.LogCaptureFixture
) -> None:
    with leases.hold("things", "run one") as lease:
        first = keeper_of_this_process()
        first.kill()
        deadline = Deadline(10)
        while (process := keeping.keeper_process()._process) in (None, first):
            assert not deadline.is_over
            time.sleep(0.02)
        with pytest.raises(ReleaseError, match="by run one"):
            leases.take("things", "run two", wait=2 * SECONDS)
        lease.require()
    assert process is not None
    assert "keeps leases alive ended (exit code -9): started again" in caplog.text


@pytest.mark.usefixtures("short")
def test_a_keeper_that_does_not_read_is_replaced(leases: Leases) -> None:
    with leases.hold("things", "run one"):
        first = keeper_of_this_process()
        os.kill(first.pid, signal.SIGSTOP)
        while first.poll() is None:
            with leases.hold("other things", "run one"):
                pass
    assert first.returncode == -signal.SIGKILL


def test_a_forked_child_has_a_keeper_of_its_own(leases: Leases) -> None:
    with leases.hold("things", "run one"):
        parents = keeper_of_this_process()
        assert parents.stdin is not None
        inherited = os.fstat(parents.stdin.fileno()).st_ino
        read, write = os.pipe()
        if not (child := os.fork()):
            code = 1
            try:
                opened = {file.stat().st_ino for file in Path("/proc/self/fd").iterdir()
                          if file.exists()}  # fmt: skip
                with leases.hold("other things", "run one") as lease:
                    lease.require()
                    own = keeper_of_this_process().pid
                code = 0 if own != parents.pid and inherited not in opened else 2
                keeping.keeper_process().close()
            finally:
                os.write(write, b".")
                os._exit(code)
        assert os.read(read, 1)
        assert os.waitpid(child, 0)[1] == 0
        os.close(read)
        os.close(write)
        assert parents.poll() is None


_SCRIPT = """
import os, sys
from pipelines.online.store import OnlineStore
store = OnlineStore(os.environ["URL"], "quiet")
with store.leases.hold("things", "run one"):
    from pipelines.online.keeper_process import keeper_process
    keeper = keeper_process()._process
    with open(f"/proc/{keeper.pid}/cmdline") as file:
        assert "password" not in file.read()
print(keeper.pid)
"""


def test_a_process_that_held_a_lease_ends_at_once_and_in_silence(redis_server: RedisServer) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", _SCRIPT],
        env={**os.environ, "URL": redis_server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    assert not Path(f"/proc/{done.stdout.strip()}").exists()
