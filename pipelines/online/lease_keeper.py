"""The program that keeps leases alive, run as a process beside the one that holds them.

A process of its own is held up neither by Python's lock in the holder nor by a long native call
there. It is run by its path and imports nothing of Ferry's, and redis only when the first renewal
is due: a lease that is held for less than two seconds costs no more than the start of Python.

It reads a line of JSON for each lease that is to be kept, or no longer, and ends when its input
does or when its parent is gone: the leases of a holder that was killed run out.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import redis

#: Seconds that the fence of a lease is remembered after its last renewal.
FENCE_SECONDS = 30 * 86_400

# KEYS: lease, fence. ARGV: token, fence, milliseconds, how long the fence is remembered. Answers
# 'held' and the fence, 'unsure' and for how many milliseconds, or why it is lost: 'taken' and the
# token that took it, or 'ended'.
RENEW = """-- renew a lease
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local holder = redis.call('GET', KEYS[1])
local last = redis.call('HMGET', KEYS[2], 'fence', 'token', 'held', 'sure_at')
local number, fence = tonumber(last[1] or '0'), tonumber(ARGV[2])
local sure_at = tonumber(last[4] or '0')
if last[2] == ARGV[1] then
  if last[3] ~= '1' then return {'ended', ''} end
  fence = math.max(fence, number)
  if sure_at > 0 and now >= sure_at then
    -- Nobody who took it later has renewed it meanwhile; one who comes now is fenced off.
    fence, sure_at = math.max(fence + 1, time[1] * 1000000 + time[2]), 0
  end
elseif number >= fence then
  return {'taken', last[2]}
else
  -- Redis lost its data, or came back with older ones. Who took the lease after us, if somebody
  -- did, renews it within the time of a lease.
  sure_at = now + ARGV[3]
end
-- A lease of somebody else's without a fence: an earlier Ferry took it.
if holder and holder ~= ARGV[1] and (last[2] == ARGV[1] or not last[2]) then
  return {'taken', holder}
end
fence, sure_at = string.format('%.0f', fence), string.format('%.0f', sure_at)
if holder == ARGV[1] and last[1] == fence and last[2] == ARGV[1] and last[4] == sure_at then
  -- The usual case, which a Redis that is out of memory does not refuse.
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
  redis.call('HSET', KEYS[2], 'fence', fence, 'token', ARGV[1], 'held', '1', 'sure_at', sure_at)
end
redis.call('EXPIRE', KEYS[2], ARGV[4])
if sure_at ~= '0' then return {'unsure', string.format('%.0f', sure_at - now)} end
return {'held', fence}
"""


def renew(
    client: redis.Redis, lease: str, fence_key: str, token: str, fence: str, ms: int
) -> tuple[str, str]:
    """Renew a lease by `RENEW`; returns its answer.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    answer = client.eval(RENEW, 2, lease, fence_key, token, fence, str(ms), str(FENCE_SECONDS))
    state, detail = cast(list[bytes], answer)
    return state.decode(), detail.decode()


class _Keeper:
    def __init__(self) -> None:
        self._held: dict[int, dict[str, Any]] = {}
        self._due: dict[int, float] = {}
        self._clients: dict[str, redis.Redis] = {}

    def note(self, line: bytes) -> None:
        message = json.loads(line)
        number = message["number"]
        if "lease" in message:
            self._held[number] = message
            # Early, because redis has to be imported first.
            self._due[number] = time.monotonic() + min(2.0, message["ms"] / 10_000)
        else:
            self._drop(number)

    def _drop(self, number: int) -> None:
        self._held.pop(number, None)
        self._due.pop(number, None)

    def wait(self) -> float | None:
        """Return the seconds until the next renewal is due; None: nothing is held."""
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def due(self) -> list[int]:
        now = time.monotonic()
        return [number for number, when in self._due.items() if when <= now]

    def renew(self, number: int) -> None:
        from redis.exceptions import RedisError

        held = self._held[number]
        seconds = held["ms"] / 1000
        try:
            state, detail = renew(
                self._client(held["url"], seconds),
                held["lease"], held["fence_key"], held["token"], held["fence"], held["ms"],
            )  # fmt: skip
        except RedisError:
            # Whoever holds it meets the same error when it asks, and says so.
            self._due[number] = time.monotonic() + seconds / 10
            return
        if state == "held":
            held["fence"] = detail
        elif state != "unsure":
            # The holder learns the same from Redis when it asks.
            self._drop(number)
            return
        self._due[number] = time.monotonic() + seconds / 3

    def _client(self, url: str, seconds: float) -> redis.Redis:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        if url not in self._clients:
            patience = max(1.0, seconds / 6)
            self._clients[url] = redis.Redis.from_url(
                url,
                socket_timeout=patience,
                socket_connect_timeout=patience,
                retry=Retry(NoBackoff(), 0),
            )
        return self._clients[url]


def main(parent: int) -> None:
    """Keep what standard input names until it ends, or the process `parent` does."""
    keeper, rest = _Keeper(), b""
    while True:
        readable, _, _ = select.select([0], [], [], keeper.wait())
        if readable:
            if not (data := os.read(0, 1 << 16)):
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                keeper.note(line)
            continue
        for number in keeper.due():
            # Another child of the holder's may have the other end of our input.
            if os.getppid() != parent:
                return
            keeper.renew(number)


if __name__ == "__main__":
    main(int(sys.argv[1]))
