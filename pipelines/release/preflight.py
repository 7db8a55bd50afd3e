"""Will a version fit into Redis? Asked before anything of it is written.

The estimate is the size of each bucket as Redis would encode it, averaged over how many rows a
bucket gets (a binomial distribution, since crc32 spreads the ids), and rounded as the server's
allocator rounds. It is calibrated to lie between MEMORY USAGE and 15% above it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pipelines.evaluation.gates import GateResult, not_compared
from pipelines.online.layout import TableMeta
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest

MEMORY = "memory"

#: Against what the distribution's tails and the mean lengths of ids and values leave out.
_MARGIN = 1.03
#: A key of the database: its entry and slot in the dictionary, and the object.
_KEY_BYTES = 24 + 8 + 16
_LISTPACK_HEADER = 11
_DICT_BYTES = 96
_DICT_ENTRY = 24
_STRING_HEADER = 6
#: What is left of a chunk that glibc gives out again, and is too small to be one of its own, stays
#: with it. In a table of few rows each may get such a chunk; free ones of one size are not many.
_UNSPLIT_BYTES, _MOST_REUSED = 16, 64
#: Of a row's mean payload, what is taken for the id where values differ in length.
_SHORT_ID = 4

Rounding = Callable[[int], int]


class Encoding(NamedTuple):
    """Up to how many entries, and how long a value, a hash is stored as one listpack."""

    max_entries: int
    max_value: int

    @classmethod
    def of(cls, limits: Mapping[str, int] | None) -> Encoding:
        """Read the server's settings under their newer or older names; none: never a listpack."""
        found = limits or {}
        return cls(*(_setting(found, what) for what in ("entries", "value")))

    def is_listpack(self, meta: TableMeta, rows: int) -> bool:
        """Tell whether a bucket of `rows` rows is stored as one listpack, whichever rows."""
        return rows <= self.max_entries and 0 < meta.longest <= self.max_value


def _setting(limits: Mapping[str, int], what: str) -> int:
    older = limits.get(f"hash-max-ziplist-{what}", 0)
    return limits.get(f"hash-max-listpack-{what}", older)


def round_libc(size: int) -> int:
    """Return what glibc's malloc gives for `size` bytes."""
    return max(24, -(-(size + 8) // 16) * 16 - 8)


def round_jemalloc(size: int) -> int:
    """Return what jemalloc gives for `size` bytes: four classes for each doubling."""
    if size <= 128:
        return max(8, -(-size // 16) * 16)
    step = 1 << ((size - 1).bit_length() - 3)
    return -(-size // step) * step


def estimate(meta: TableMeta, key_bytes: int, encoding: Encoding, rounded: Rounding) -> int:
    """Return the bytes that a table will take in Redis; `key_bytes` is a key's length."""
    total = 0.0
    for rows, share in _bucket_rows(meta.rows, meta.buckets):
        if rows:
            listpack = encoding.is_listpack(meta, rows)
            size = (_listpack if listpack else _hashtable)(meta, rows, rounded)
            total += share * (size + _KEY_BYTES + rounded(key_bytes + _STRING_HEADER))
    reused = _UNSPLIT_BYTES * min(meta.rows, _MOST_REUSED)
    return math.ceil(total * meta.buckets * _MARGIN) + reused


def _bucket_rows(rows: int, buckets: int) -> Iterator[tuple[int, float]]:
    """Yield (rows of a bucket, share of the buckets that have so many)."""
    if buckets == 1 or rows == 0:
        yield rows, 1.0
        return
    chance = 1 / buckets
    mean, deviation = rows * chance, math.sqrt(rows * chance * (1 - chance))
    low, high = max(0, int(mean - 8 * deviation)), min(rows, int(mean + 8 * deviation) + 2)
    for count in range(low, high + 1):
        ways = math.lgamma(rows + 1) - math.lgamma(count + 1) - math.lgamma(rows - count + 1)
        yield (
            count,
            math.exp(ways + count * math.log(chance) + (rows - count) * math.log1p(-chance)),
        )


def _listpack(meta: TableMeta, rows: int, rounded: Rounding) -> int:
    """Return the bytes of a listpack, or of the ziplist of Redis 6 where that is larger."""
    if meta.longest < 64:
        overhead = 4
    elif meta.longest < 250:
        overhead = 6
    else:
        overhead = 9 if meta.longest < 4096 else 12
    return rounded(_LISTPACK_HEADER + round(rows * (_row_bytes(meta) + overhead)))


def _hashtable(meta: TableMeta, rows: int, rounded: Rounding) -> int:
    """Return the bytes of a hash table with two strings an entry, at worst half-way of a resize."""
    slots = 1 << max(2, (rows - 1).bit_length())
    mean = round(_row_bytes(meta))
    value = max(0, min(meta.longest, mean - _SHORT_ID))
    entity_id = mean - value
    strings = rounded(entity_id + _STRING_HEADER) + rounded(value + _STRING_HEADER)
    row = rounded(_DICT_ENTRY) + strings
    return rounded(_DICT_BYTES) + rounded(slots * 12) + rows * row


def _row_bytes(meta: TableMeta) -> float:
    return meta.payload_bytes / max(1, meta.rows)


def judge(
    needed: int, staged: int, memory: Mapping[str, Any], reserve: float, address: str
) -> GateResult:
    """Return whether `needed` bytes fit, of which `staged` are in Redis already.

    `memory` is what ``INFO memory`` answered; `reserve` the share of maxmemory to leave free. The
    gate's value is what is needed still, its threshold what is free, its baseline maxmemory, all
    in bytes.
    """
    limit, used = _number(memory, "maxmemory"), _number(memory, "used_memory")
    more = max(0, needed - staged)
    text = f"{_size(more)} needed" + (f" beside {_size(staged)} already staged" if staged else "")
    if limit is None or used is None:
        reason = f"{text}; Redis at {address} does not say how much it has: not checked"
        return not_compared("publish", MEMORY, reason).model_copy(update={"value": float(more)})
    if limit == 0:
        reason = f"{text}; Redis at {address} has no maxmemory: not limited"
        return GateResult(group="publish", name=MEMORY, verdict="passed", value=more, reason=reason)
    free = max(0, math.floor(limit * (1 - reserve)) - used)
    found = f"{_size(free)} free of maxmemory {_size(limit)} (reserve {reserve:.0%})"
    fits = more <= free
    reason = f"{text}, {found}"
    if not fits:
        reason = (
            f"Redis at {address}: {reason}: remove old versions with 'ferry retention' or raise "
            "maxmemory"
        )
    return GateResult(
        group="publish",
        name=MEMORY,
        verdict="passed" if fits else "refused",
        value=more,
        threshold=free,
        baseline=limit,
        reason=reason,
    )


def _number(memory: Mapping[str, Any], field: str) -> int | None:
    value = memory.get(field)
    return value if isinstance(value, int) else None


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1_000_000 else f"{size:,} bytes"


def check_memory(context: ReleaseContext, manifest: Manifest) -> GateResult:
    """Return whether a version's tables will fit into Redis; see :func:`judge`."""
    online, unit, version = context.online, manifest.unit, manifest.version
    memory = online.memory_info()
    rounded = round_jemalloc if "jemalloc" in str(memory.get("mem_allocator")) else round_libc
    encoding = Encoding.of(online.hash_limits())
    needed = staged = 0
    unmeasured = [meta.name for meta in manifest.tables if not meta.longest]
    for meta in manifest.tables:
        key = online.keys(unit).bucket(meta.name, version, meta.buckets)
        size = estimate(meta, len(key.encode()), encoding, rounded)
        needed += size
        # Each table by itself: one that is larger than expected makes no room for another.
        staged += min(size, online.memory_of(unit, version, meta))
    gate = judge(needed, staged, memory, context.config.memory_reserve, online.address)
    if not unmeasured:
        return gate
    reason = f"{gate.reason}; without {', '.join(unmeasured)}, never measured"
    return gate.model_copy(update={"reason": reason})
