"""Leases: who may change something now, so that a late or second process can't.

A lease is two keys of Redis. ``<prefix>:lease:{<what>}`` has a time to live; its value is a token,
``<owner>|<random>``, that a process beside the holder keeps alive while the holder lives
(:mod:`pipelines.online.keeper_process`). ``<prefix>:fence:{<what>}`` is a hash that stays: the
`fence` of who took the lease last, a number that only grows, their `token`, `held` while
they have it, and `sure_at`. The braces make Redis Cluster keep both beside the key that the lease
guards.

What decides is the second key. A lease that ran out is still its holder's unless somebody took it
since, even if they gave it back. Writes that matter are fenced: their script moves nothing unless
the fence has the writer's token (:mod:`pipelines.online.pointer`).

A fence is Redis's clock in microseconds, or one more than the one before if that is greater: so it
grows also where Redis lost its data. A lease that was lost with them is restored by its holder, of
several the one with the greatest fence. Until `sure_at` (Redis's clock in ms; 0: no need to wait),
the time of a lease later, nobody has it: one who took it later and lives has renewed it by then.

The same owner may take its lease over: a run's retry does not have to wait until the lease of the
attempt that was killed runs out, and that attempt, should it still live, is fenced off.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import redis

from pipelines.errors import ReleaseError, ServiceError
from pipelines.online.connection import explained
from pipelines.online.keeper_process import Kept, keeper_process
from pipelines.online.lease_keeper import FENCE_SECONDS, renew

LEASE_SECONDS = 30.0
_POLL_SECONDS = 0.1

# KEYS: lease, fence. ARGV: token, how a token begins that may be taken over, milliseconds, how long
# the fence is remembered. Answers the holder's token (ours, if it is taken) and the fence.
_TAKE = """-- take a lease
local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder, 1, #ARGV[2]) ~= ARGV[2] then return {holder, ''} end
local time = redis.call('TIME')
local last = redis.call('HMGET', KEYS[2], 'fence', 'token')
local fence = last[1]
-- The same request again, whose answer was lost on the way, is not counted again.
if last[2] ~= ARGV[1] then
  fence = math.max(tonumber(fence or '0') + 1, time[1] * 1000000 + time[2])
  fence = string.format('%.0f', fence)
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('HSET', KEYS[2], 'fence', fence, 'token', ARGV[1], 'held', '1', 'sure_at', '0')
redis.call('EXPIRE', KEYS[2], ARGV[4])
return {ARGV[1], fence}
"""
# KEYS: lease, fence. ARGV: token, fence, how long the fence is remembered. A renewal that is still
# on its way finds afterwards that the lease has ended.
_GIVE_BACK = """-- give back a lease
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
local last = redis.call('HMGET', KEYS[2], 'fence', 'token')
local number, fence = tonumber(last[1] or '0'), tonumber(ARGV[2])
if last[2] == ARGV[1] then
  redis.call('HDEL', KEYS[2], 'held')
elseif number < fence then
  redis.call('HSET', KEYS[2], 'fence', ARGV[2], 'token', ARGV[1])
  redis.call('HDEL', KEYS[2], 'held')
else
  return
end
redis.call('EXPIRE', KEYS[2], ARGV[3])
"""

log = logging.getLogger(__name__)


class LeaseLostError(ReleaseError):
    """The lease is no longer ours; the message says why. What it guards may not be changed now."""


class Taken(NamedTuple):
    """A lease as it was taken: its keys, its token and its fence."""

    key: str
    fence_key: str
    token: str
    fence: str

    @property
    def owner(self) -> str:
        """Who took it."""
        return _owner(self.token)


class Lease:
    """A lease that is held; what `taken` says is what fenced writes present."""

    def __init__(self, what: str, taken: Taken, renew: Callable[[Taken], tuple[str, str]]) -> None:
        self.what = what
        self.taken = taken
        self._renew = renew
        self._lost: str | None = None

    def require(self) -> None:
        """Ask Redis whether the lease is still ours, before a write that nothing else fences.

        Where Redis lost its data since, it takes up to the time of a lease to be sure.

        Raises:
            LeaseLostError: it was lost.
            ServiceError: Redis does not answer.
        """
        if self._lost is None:
            state, detail = self._renew(self.taken)
            while state == "unsure":
                log.warning(
                    "Redis lost the lease of %s: in %.0f s it is sure whether another process "
                    "took it",
                    self.what, int(detail) / 1000,
                )  # fmt: skip
                time.sleep(int(detail) / 1000)
                state, detail = self._renew(self.taken)
            if state == "held":
                self.taken = self.taken._replace(fence=detail)
            else:
                self._lost = self._why(state, detail)
        if self._lost is not None:
            raise LeaseLostError(f"{self.what}: {self._lost}; nothing more was changed")

    def _why(self, state: str, detail: str) -> str:
        if state == "taken":
            other = _owner(detail)
            who = f"another attempt of {other}" if other == self.taken.owner else other
            return f"{who} took over meanwhile"
        return "the lease was given back"


class Leases:
    """The leases under one prefix, in the Redis that `url` names and `client` is connected to."""

    def __init__(self, client: redis.Redis, prefix: str, address: str, url: str) -> None:
        self._redis = client
        self._prefix = prefix
        self._url = url
        self.address = address

    def key(self, what: str) -> str:
        """Return the key of the lease of `what`, in the same hash slot as a key named `what`."""
        return f"{self._prefix}:lease:{{{what}}}"

    def fence_key(self, what: str) -> str:
        """Return the key of the fence of `what`, in the same hash slot."""
        return f"{self._prefix}:fence:{{{what}}}"

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
        taken = self.take(what, owner, label=name, wait=wait, take_over=take_over)
        keeper = keeper_process()
        number = keeper.keep(Kept(self._url, *taken, _milliseconds()))
        try:
            yield Lease(name, taken, self.renew)
        finally:
            keeper.drop(number)
            try:
                self.give_back(taken)
            except ServiceError as error:
                # What it guarded is done: an error here would only hide how that ended.
                log.warning("the lease of %s runs out by itself: %s", name, error)

    @explained
    def holder(self, what: str) -> str | None:
        """Return who holds the lease of `what`, or None."""
        token = cast(bytes | None, self._redis.get(self.key(what)))
        return _owner(token.decode()) if token else None

    def take(
        self,
        what: str,
        owner: str,
        *,
        label: str | None = None,
        wait: float = 0.0,
        take_over: bool = True,
    ) -> Taken:
        """Take the lease of `what`, which then runs out unless it is renewed; as :meth:`hold`."""
        token = f"{owner}|{uuid.uuid4().hex}"
        ours = f"{owner}|" if take_over else token
        deadline = time.monotonic() + wait
        while True:
            holder, fence = self._take(what, token, ours)
            if holder == token:
                return Taken(self.key(what), self.fence_key(what), token, fence)
            if time.monotonic() >= deadline:
                raise ReleaseError(
                    f"{label or what} is being changed by {_owner(holder)}: try again later"
                )
            time.sleep(_POLL_SECONDS)

    @explained
    def _take(self, what: str, token: str, ours: str) -> tuple[str, str]:
        answer = self._redis.eval(
            _TAKE, 2, self.key(what), self.fence_key(what),
            token, ours, str(_milliseconds()), str(FENCE_SECONDS),
        )  # fmt: skip
        holder, fence = cast(list[bytes], answer)
        return holder.decode(), fence.decode()

    @explained
    def renew(self, taken: Taken) -> tuple[str, str]:
        """Renew a lease, also one that ran out.

        Returns "held" and the fence; "unsure" and for how many milliseconds, where Redis lost its
        data; or why the lease is lost: "taken" and the token that took it, or "ended".
        """
        return renew(self._redis, *taken, _milliseconds())

    @explained
    def give_back(self, taken: Taken) -> None:
        """Free a lease, unless another process took it."""
        self._redis.eval(
            _GIVE_BACK, 2, taken.key, taken.fence_key, taken.token, taken.fence, str(FENCE_SECONDS)
        )


def _owner(token: str) -> str:
    return token.rpartition("|")[0]


def _milliseconds() -> int:
    return int(LEASE_SECONDS * 1000)
