"""Writing one Parquet part to Redis and reading it back, in whatever process a runner starts."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.config import Settings
from pipelines.errors import VerificationError
from pipelines.online.buckets import Bucket, TableSum, pack_buckets, sum_bucket
from pipelines.online.layout import TableMeta
from pipelines.online.store import OnlineStore
from pipelines.patience import Patience
from pipelines.release.manifest import FileEntry, Manifest
from pipelines.release.objects import Credentials, ObjectStore
from pipelines.release.tables import part_batches

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows of each part that are looked up one by one, others each time.
_SAMPLE = 32
_IDS_NAMED = 3


class Part(NamedTuple):
    """One Parquet file of a table: its key in object storage, its size and SHA-256."""

    meta: TableMeta
    key: str
    entry: FileEntry


class PartReport(NamedTuple):
    """What was written of one part, and read back the same."""

    table: str
    total: TableSum
    sampled: int
    write_seconds: float
    verify_seconds: float


class PartWriter(NamedTuple):
    """Writes parts of one version; travels to other processes, so it holds plain values."""

    redis_url: str
    redis_prefix: str
    s3_endpoint_url: str | None
    bucket: str
    credentials: Credentials | None
    unit: str
    version: int
    replace: bool

    @classmethod
    def of(cls, settings: Settings, manifest: Manifest, *, replace: bool) -> PartWriter:
        """Return the writer of a version, with this process's credentials."""
        return cls(
            settings.redis_url.get_secret_value(),
            settings.redis_prefix,
            settings.s3_endpoint_url,
            settings.bucket,
            Credentials.current(),
            manifest.unit,
            manifest.version,
            replace,
        )

    def write(self, part: Part) -> PartReport:
        """Download, verify, write and read back one part.

        Raises:
            ReleaseError: the file is not what the manifest sealed.
            ServiceError: Redis or object storage does not answer or refuses.
            VerificationError: Redis holds something else than was written.
        """
        objects = ObjectStore(
            self.s3_endpoint_url, self.bucket, self.credentials, patience=Patience.STEP
        )
        online = OnlineStore(self.redis_url, self.redis_prefix, Patience.STEP)
        try:
            with tempfile.TemporaryDirectory(prefix="ferry-part-") as folder:
                path = Path(folder) / "part.parquet"
                objects.download(part.key, path, part.entry)
                return self.write_file(online, part.meta, path)
        finally:
            online.close()

    def write_file(self, online: OnlineStore, meta: TableMeta, path: Path) -> PartReport:
        """Write and read back one part that is on this machine, and verified."""
        started = time.monotonic()
        sums: dict[int, TableSum] = {}
        sample: dict[str, bytes] = {}
        positions = _random_positions(path)
        done = 0
        for batch in part_batches(path):

            def buckets(batch: pa.RecordBatch = batch) -> Iterator[Bucket]:
                for bucket in pack_buckets(batch, meta):
                    sums[bucket.number] = sum_bucket(bucket)
                    yield bucket

            online.write_buckets(self.unit, self.version, meta, buckets, replace=self.replace)
            here = [p - done for p in positions if done <= p < done + batch.num_rows]
            sample.update(_rows_at(batch, here, meta))
            done += batch.num_rows
        written = time.monotonic()
        total = self._verify_buckets(online, meta, sums, path)
        self._verify_sample(online, meta, sample)
        return PartReport(
            meta.name, total, len(sample), written - started, time.monotonic() - written
        )

    def _verify_buckets(
        self, online: OnlineStore, meta: TableMeta, sums: dict[int, TableSum], path: Path
    ) -> TableSum:
        total = TableSum()
        for bucket in online.read_buckets(self.unit, self.version, meta, list(sums)):
            stored, built = sum_bucket(bucket), sums[bucket.number]
            if stored != built:
                raise VerificationError(
                    f"{self.unit} {self.version}, table {meta.name}: Redis at {online.address} "
                    f"holds another bucket {bucket.number} (checksum {stored.hex}) than was built "
                    f"({built.hex}): {_difference(bucket, path, meta)}"
                )
            total = total.plus(stored)
        return total

    def _verify_sample(
        self, online: OnlineStore, meta: TableMeta, sample: dict[str, bytes]
    ) -> None:
        answers = online.read_packed(self.unit, self.version, meta, list(sample))
        for entity_id, value in sample.items():
            answer = answers.get(entity_id)
            if answer != value:
                raise VerificationError(
                    f"{self.unit} {self.version}, table {meta.name}, id {entity_id}: Redis at "
                    f"{online.address} answers {_size(answer)} that differ from the "
                    f"{_size(value)} built, though the whole bucket agrees"
                )


def _random_positions(path: Path) -> list[int]:
    import pyarrow.parquet as pq

    rows = pq.read_metadata(path).num_rows
    return sorted(random.SystemRandom().sample(range(rows), min(_SAMPLE, rows)))


def _rows_at(batch: pa.RecordBatch, positions: list[int], meta: TableMeta) -> dict[str, bytes]:
    import pyarrow as pa

    if not positions:
        return {}
    rows = batch.take(pa.array(positions, pa.int32()))
    return {
        entity_id.decode(): value
        for bucket in pack_buckets(rows, meta)
        for entity_id, value in zip(bucket.ids, bucket.values, strict=True)
    }


def _difference(stored: Bucket, path: Path, meta: TableMeta) -> str:
    """Say which ids of a bucket are missing, differ, or should not be there."""
    found = dict(zip(stored.ids, stored.values, strict=True))
    built = {
        entity_id: value
        for batch in part_batches(path)
        for bucket in pack_buckets(batch, meta)
        if bucket.number == stored.number
        for entity_id, value in zip(bucket.ids, bucket.values, strict=True)
    }
    kinds = {
        "missing": [i for i in built if i not in found],
        "different": [i for i in built if i in found and found[i] != built[i]],
        "too many": [i for i in found if i not in built],
    }
    return ", ".join(f"{kind}: {_named(ids)}" for kind, ids in kinds.items() if ids)


def _named(ids: list[bytes]) -> str:
    names = ", ".join(i.decode(errors="replace") for i in sorted(ids)[:_IDS_NAMED])
    return names + (f" and {len(ids) - _IDS_NAMED} more" if len(ids) > _IDS_NAMED else "")


def _size(value: bytes | None) -> str:
    return "no bytes" if value is None else f"{len(value)} bytes"
