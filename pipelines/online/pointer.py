"""The pointer: the one key a unit that names the version that is live.

``<prefix>:<unit>:live`` is a hash. Its fields: ``version``, the live version (absent: nothing is
live); ``previous``, what a rollback goes to; ``replaced``, what was live just before; ``since``,
ISO 8601; ``epoch``, which grows by every move and never shrinks, so that two moves between the
same versions are told apart. An empty field is none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import redis
from pydantic import BaseModel, ConfigDict

from pipelines.errors import ReleaseError
from pipelines.online.connection import explained
from pipelines.online.layout import Keys
from pipelines.online.leases import Lease, LeaseLostError, Taken

# Moves the pointer in one step, so that no reader and no second writer sees it half-way.
# KEYS: pointer, lease, its fence. ARGV: the mover's token, the epoch that it saw ('0': none), the
# new epoch, version, previous, replaced, since, '1' to allow going back. Answers what stopped it,
# or 'moved'. That the lease has run out does not, as long as nobody took it.
_MOVE = """-- move the pointer
local fence = redis.call('HMGET', KEYS[3], 'token', 'held', 'sure_at')
if fence[1] ~= ARGV[1] or fence[2] ~= '1' or fence[3] ~= '0' then return 'lease' end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return 'lease' end
local live = redis.call('HGET', KEYS[1], 'version')
local epoch = redis.call('HGET', KEYS[1], 'epoch') or '0'
-- The same move again: its answer was lost on the way, and the client asked once more.
if epoch == ARGV[3] and (live or '') == ARGV[4] then return 'moved' end
if epoch ~= ARGV[2] then return 'epoch' end
if tonumber(ARGV[3]) <= tonumber(epoch) then return 'epoch' end
if ARGV[8] ~= '1' and live and live ~= '' and tonumber(ARGV[4]) < tonumber(live) then
  return 'backward'
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'version', ARGV[4], 'previous', ARGV[5],
  'replaced', ARGV[6], 'since', ARGV[7])
return 'moved'
"""


class Pointer(BaseModel):
    """Which version of a unit is live, since when, and which were before it."""

    model_config = ConfigDict(frozen=True)

    version: int
    previous: int | None = None
    replaced: int | None = None
    epoch: int
    since: datetime

    @property
    def needed(self) -> frozenset[int]:
        """The versions that must stay whole online: live, what a rollback goes to, and what a
        reader who took the pointer a moment ago may still be reading.
        """
        return frozenset(v for v in (self.version, self.previous, self.replaced) if v)


class PointerStore:
    """The pointers under one prefix.

    Every method raises ServiceError, with the address, if Redis does not answer or refuses.
    """

    def __init__(self, client: redis.Redis, prefix: str, address: str) -> None:
        self._redis = client
        self._prefix = prefix
        self.address = address

    def key(self, unit: str) -> str:
        """Return the key of a unit's pointer; also what its lease is named after."""
        return Keys(self._prefix, unit).live

    @explained
    def get(self, unit: str) -> Pointer | None:
        """Return what is live, or None if nothing is."""
        fields = cast(dict[bytes, bytes], self._redis.hgetall(self.key(unit)))
        if not fields.get(b"version"):
            return None
        return Pointer(
            version=int(fields[b"version"]),
            previous=int(fields.get(b"previous") or 0) or None,
            replaced=int(fields.get(b"replaced") or 0) or None,
            epoch=int(fields.get(b"epoch") or 0),
            since=datetime.fromisoformat(fields[b"since"].decode()),
        )

    @explained
    def epoch(self, unit: str) -> int:
        """Return the epoch of the last move; 0 if there was none."""
        return int(cast(bytes | None, self._redis.hget(self.key(unit), "epoch")) or 0)

    def move(
        self,
        unit: str,
        lease: Lease,
        *,
        seen_epoch: int,
        epoch: int,
        target: Pointer | None,
        allow_backward: bool = False,
    ) -> None:
        """Make the pointer name what `target` names, atomically; None: nothing is live.

        It moves only while `lease` is ours, only if its epoch still is `seen_epoch`, only to a
        greater `epoch`, and, unless `allow_backward`, only to a version that is not older.

        Raises:
            LeaseLostError: the lease was lost.
            ReleaseError: the pointer was moved meanwhile, or it would go back.
        """
        answer = self._move(unit, lease.taken, seen_epoch, epoch, target, allow_backward)
        if answer == b"lease":
            # Lost, which this says; or Redis lost its data, after which this makes it ours again.
            lease.require()
            answer = self._move(unit, lease.taken, seen_epoch, epoch, target, allow_backward)
        match answer:
            case b"moved":
                return
            case b"lease":
                raise LeaseLostError(f"{unit}: the lease was lost meanwhile; nothing was moved")
            case b"backward":
                raise ReleaseError(f"{unit}: the pointer moves only forward, see 'ferry rollback'")
            case _:
                raise ReleaseError(f"{unit}: another run moved the pointer meanwhile")

    @explained
    def _move(
        self,
        unit: str,
        taken: Taken,
        seen_epoch: int,
        epoch: int,
        target: Pointer | None,
        allow_backward: bool,
    ) -> bytes:
        answer = self._redis.eval(
            _MOVE,
            3,
            self.key(unit),
            taken.key,
            taken.fence_key,
            taken.token,
            str(seen_epoch),
            str(epoch),
            _text(target.version if target else None),
            _text(target.previous if target else None),
            _text(target.replaced if target else None),
            (target.since if target else datetime.now(UTC)).isoformat(timespec="milliseconds"),
            "1" if allow_backward else "0",
        )
        return cast(bytes, answer)


def _text(version: int | None) -> str:
    return str(version) if version else ""
