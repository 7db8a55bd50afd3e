"""Leases: who may change something now, so that a late or second process can't.

A lease is the Redis key ``<prefix>:lease:{<what>}`` with a time to live; its value is a token,
``<owner>|<random>``, that a thread keeps alive while the holder lives. Writes that matter are
fenced: their script moves nothing unless the lease still holds the writer's own token
(:mod:`pipelines.online.pointer`). The braces make Redis Cluster keep a lease beside the key that
it guards.

The same owner may take its lease over: a run's retry does not have to wait until the lease of the
attempt that was killed runs out, and that attempt, should it still live, is fenced off.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import redis

from pipelines.errors import ReleaseError, ServiceError
from pipelines.online.connection import explained

LEASE_SECONDS = 30.0
_POLL_SECONDS = 0.1

# ARGV: token, how a token begins that may be taken over, milliseconds. Answers the holder's token:
# ours, if it is taken.
_ACQUIRE = """
local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder, 1, #ARGV[2]) ~= ARGV[2] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return ARGV[1]
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"

log = logging.getLogger(__name__)


class LeaseLostError(ReleaseError):
    """Another process took the lease, or Redis lost it: what it guards may not be changed now."""


class Lease:
    """A lease that is held; `token` is what fenced writes present."""

    def __init__(self, what: str, key: str, token: str, renew: Callable[[Lease], bool]) -> None:
        self.what = what
        self.key = key
        self.token = token
        self._renew = renew
        self._lost = threading.Event()

    def lose(self) -> None:
        """Note that the lease is no longer ours."""
        self._lost.set()

    def require(self) -> None:
        """Ask Redis whether the lease is still ours, before a write that nothing else fences.

        Raises:
            LeaseLostError: it was lost.
            ServiceError: Redis does not answer.
        """
        if self._lost.is_set() or not self._renew(self):
            self.lose()
            raise LeaseLostError(
                f"{self.what}: another process took over meanwhile; nothing more was changed"
            )


class Leases:
    """The leases under one prefix."""

    def __init__(self, client: redis.Redis, prefix: str, address: str) -> None:
        self._redis = client
        self._prefix = prefix
        self.address = address

    def key(self, what: str) -> str:
        """Return the key of the lease of `what`, in the same hash slot as a key named `what`."""
        return f"{self._prefix}:lease:{{{what}}}"

    @contextmanager
    def hold(
        self,
        what: str,
        owner: str,
        *,
        label: str | None = None,
        wait: float = 0.0,
        take_over: bool = True,
    ) -> Iterator[Lease]:
        """Hold the lease of `what` for the time of the block, waiting up to `wait` seconds for it.

        `label` is what messages call it. Without `take_over` also the same owner has to wait:
        for what several tasks of one run change at the same time.

        Raises:
            ReleaseError: another owner holds it; the message names the holder.
            ServiceError: Redis does not answer.
        """
        name = label or what
        lease = self._take(what, name, owner, wait, take_over)
        stop = threading.Event()
        keeper = threading.Thread(
            target=self._keep, args=(lease, stop), name=f"lease {name}", daemon=True
        )
        keeper.start()
        try:
            yield lease
        finally:
            stop.set()
            keeper.join()
            self._give_back(lease)

    @explained
    def holder(self, what: str) -> str | None:
        """Return who holds the lease of `what`, or None."""
        token = cast(bytes | None, self._redis.get(self.key(what)))
        return token.decode().rpartition("|")[0] if token else None

    def _take(self, what: str, name: str, owner: str, wait: float, take_over: bool) -> Lease:
        token = f"{owner}|{uuid.uuid4().hex}"
        key = self.key(what)
        ours = f"{owner}|" if take_over else token
        deadline = time.monotonic() + wait
        while (holder := self._acquire(key, token, ours)) != token:
            if time.monotonic() >= deadline:
                raise ReleaseError(
                    f"{name} is being changed by {holder.rpartition('|')[0]}: try again later"
                )
            time.sleep(_POLL_SECONDS)
        return Lease(name, key, token, self._renew)

    @explained
    def _acquire(self, key: str, token: str, ours: str) -> str:
        milliseconds = int(LEASE_SECONDS * 1000)
        answer = self._redis.eval(_ACQUIRE, 1, key, token, ours, str(milliseconds))
        return cast(bytes, answer).decode()

    @explained
    def _renew(self, lease: Lease) -> bool:
        milliseconds = int(LEASE_SECONDS * 1000)
        return bool(self._redis.eval(_RENEW, 1, lease.key, lease.token, str(milliseconds)))

    def _keep(self, lease: Lease, stop: threading.Event) -> None:
        while not stop.wait(LEASE_SECONDS / 3):
            try:
                if not self._renew(lease):
                    lease.lose()
                    return
            except ServiceError as error:
                # The lease outlives two failed renewals; fenced writes notice if it did not.
                log.warning("could not renew the lease of %s: %s", lease.what, error)

    def _give_back(self, lease: Lease) -> None:
        try:
            self._release(lease)
        except ServiceError as error:
            # What it guarded is done: an error here would only hide how that ended.
            log.warning("the lease of %s runs out by itself: %s", lease.what, error)

    @explained
    def _release(self, lease: Lease) -> None:
        self._redis.eval(_RELEASE, 1, lease.key, lease.token)
