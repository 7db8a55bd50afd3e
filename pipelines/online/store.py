"""Everything that Ferry keeps in Redis: pointers, leases, and the tables behind the pointers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import ResponseError

from pipelines.config import Settings
from pipelines.online import bulk
from pipelines.online.buckets import Bucket, pack_buckets
from pipelines.online.connection import explained, open_redis, redis_address
from pipelines.online.layout import Keys, TableMeta, Value, bucket_of, unpack
from pipelines.online.leases import Leases
from pipelines.online.pointer import PointerStore
from pipelines.patience import Patience

if TYPE_CHECKING:
    import pyarrow as pa

#: Buckets per round trip: enough to hide latency, and few enough that others are served between.
_BUCKETS_AT_ONCE = 256
#: Bytes of whole buckets per round trip.
_READ_BYTES = 4 << 20


class OnlineStore:
    """One Redis: `pointers`, `leases`, and the tables by the methods of this class.

    Every method raises ServiceError, with the address, if Redis does not answer or refuses.
    """

    def __init__(self, url: str, prefix: str, patience: Patience = Patience.READER) -> None:
        self.address = redis_address(url)
        self.prefix = prefix
        self._redis = open_redis(url, patience)
        self.pointers = PointerStore(self._redis, prefix, self.address)
        self.leases = Leases(self._redis, prefix, self.address, url)

    @classmethod
    def connect(cls, settings: Settings, patience: Patience = Patience.READER) -> OnlineStore:
        """Open the store that the settings name."""
        return cls(settings.redis_url.get_secret_value(), settings.redis_prefix, patience)

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()

    def keys(self, unit: str) -> Keys:
        """Return the names of a unit's keys."""
        return Keys(self.prefix, unit)

    @explained
    def ping(self) -> None:
        """Check that Redis answers."""
        self._redis.ping()

    @explained
    def write_meta(self, unit: str, version: int, tables: Sequence[TableMeta]) -> None:
        """Describe a version's tables; written when all of them are complete."""
        if tables:
            key = self.keys(unit).meta(version)
            self._redis.hset(key, mapping={t.name: t.model_dump_json() for t in tables})

    @explained
    def table_meta(self, unit: str, version: int) -> dict[str, TableMeta]:
        """Return the descriptions of a version's tables; empty if it is not staged."""
        raw = cast(dict[bytes, bytes], self._redis.hgetall(self.keys(unit).meta(version)))
        return {k.decode(): TableMeta.model_validate_json(v) for k, v in raw.items()}

    def write_batch(
        self,
        unit: str,
        version: int,
        meta: TableMeta,
        batch: pa.RecordBatch,
        *,
        replace: bool = False,
    ) -> int:
        """Write rows (``bucket`` int32, ``id`` string, ``value``), sorted by bucket.

        As :meth:`write_buckets`; returns how many rows.
        """
        self.write_buckets(unit, version, meta, lambda: pack_buckets(batch, meta), replace=replace)
        return int(batch.num_rows)

    @explained
    def write_buckets(
        self,
        unit: str,
        version: int,
        meta: TableMeta,
        buckets: Callable[[], Iterable[Bucket]],
        *,
        replace: bool = False,
    ) -> None:
        """Write buckets while `buckets` makes them; it is called again if the connection fails.

        Writing the same rows again changes nothing: values under a version are immutable. With
        `replace`, for keys that may be read meanwhile, a bucket with exactly these rows takes the
        place of the stored one in one step: so it must be whole.
        """
        key = self._bucket_keys(unit, version, meta)
        encode = bulk.replace_bucket if replace else bulk.set_bucket
        bulk.stream(
            self._redis, lambda: (encode(key(bucket.number), bucket) for bucket in buckets())
        )

    def _bucket_keys(self, unit: str, version: int, meta: TableMeta) -> Callable[[int], bytes]:
        keys = self.keys(unit)
        return lambda bucket: keys.bucket(meta.name, version, bucket).encode()

    def _each_bucket(
        self,
        unit: str,
        version: int,
        meta: TableMeta,
        command: tuple[bytes, ...],
        buckets: Sequence[int] | None = None,
        at_once: int = _BUCKETS_AT_ONCE,
        options: tuple[bytes, ...] = (),
    ) -> Iterator[tuple[int, Any]]:
        """Yield (bucket, reply) of a command on each bucket's key, `at_once` in a pipeline."""
        key = self._bucket_keys(unit, version, meta)
        numbers: Sequence[int] = range(meta.buckets) if buckets is None else buckets
        for start in range(0, len(numbers), at_once):
            some = numbers[start : start + at_once]
            commands = [bulk.command(*command, key(bucket), *options) for bucket in some]
            yield from zip(some, bulk.execute(self._redis, commands), strict=True)

    @explained
    def count_rows(self, unit: str, version: int, meta: TableMeta) -> int:
        """Count a table's entities, bucket by bucket."""
        return sum(rows for _, rows in self._each_bucket(unit, version, meta, (b"HLEN",)))

    def read_buckets(
        self, unit: str, version: int, meta: TableMeta, buckets: Sequence[int]
    ) -> Iterator[Bucket]:
        """Yield whole buckets as they are stored; one that is not there has no rows.

        What is under way at once is bounded by the table's mean size of a bucket.
        """
        mean = max(1, meta.payload_bytes // meta.buckets)
        at_once = max(1, min(_BUCKETS_AT_ONCE, _READ_BYTES // mean))
        replies = self._each_bucket(unit, version, meta, (b"HGETALL",), buckets, at_once)
        while (found := self._next(replies)) is not None:
            number, reply = found
            # RESP3 answers with a map, RESP2 with a flat list.
            fields = (
                reply if isinstance(reply, dict) else dict(zip(*[iter(reply)] * 2, strict=True))
            )
            yield Bucket(number, list(fields), list(fields.values()))

    @explained
    def _next(self, replies: Iterator[tuple[int, Any]]) -> tuple[int, Any] | None:
        return next(replies, None)

    def read(
        self, unit: str, version: int, meta: TableMeta, ids: Sequence[str]
    ) -> dict[str, Value]:
        """Return the values of those `ids` that the table has, in one round trip."""
        packed = self.read_packed(unit, version, meta, ids)
        return {entity_id: unpack(value, meta) for entity_id, value in packed.items()}

    @explained
    def read_packed(
        self, unit: str, version: int, meta: TableMeta, ids: Sequence[str]
    ) -> dict[str, bytes]:
        """Return like :meth:`read`, but the values as they are stored."""
        keys = self.keys(unit)
        pipeline = self._redis.pipeline(transaction=False)
        for entity_id in ids:
            key = keys.bucket(meta.name, version, bucket_of(entity_id, meta.buckets))
            pipeline.hget(key, entity_id)
        packed: list[Any] = pipeline.execute()
        return {i: value for i, value in zip(ids, packed, strict=True) if value is not None}

    @explained
    def memory_of(self, unit: str, version: int, meta: TableMeta) -> int:
        """Return the bytes that a table takes in Redis, by its own account (MEMORY USAGE)."""
        sizes = self._each_bucket(
            unit, version, meta, (b"MEMORY", b"USAGE"), options=(b"SAMPLES", b"0")
        )
        return sum(size or 0 for _, size in sizes)

    @explained
    def memory_info(self) -> dict[str, Any]:
        """Return what ``INFO memory`` says; which fields there are depends on the server."""
        return self._redis.info("memory")

    @explained
    def hash_limits(self) -> dict[str, int] | None:
        """Return the server's ``hash-max-…`` settings, or None where CONFIG is forbidden."""
        try:
            found = cast(dict[str, str], self._redis.config_get("hash-max-*"))
        except ResponseError:
            return None
        return {name: int(value) for name, value in found.items() if value.isdigit()}

    @explained
    def unlink_tables(self, unit: str, version: int, tables: Sequence[TableMeta] = ()) -> None:
        """Remove a version's tables by enumeration, descriptions last.

        `tables` are those of a version that was never completed, so that Redis does not know them.
        """
        known = {meta.name: meta for meta in tables} | self.table_meta(unit, version)
        for meta in known.values():
            for _ in self._each_bucket(unit, version, meta, (b"UNLINK",)):
                pass
        self._redis.unlink(self.keys(unit).meta(version))


def parse_feature_row(text: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the features by name from the JSON array that a feature table holds."""
    return dict(zip(names, json.loads(text), strict=True))
