"""Staging without Spark: counts, checksums, samples, leftovers, and processes as writers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import ReleaseConfig, Settings
from pipelines.errors import ReleaseError, ServiceError, VerificationError
from pipelines.online.layout import TableMeta, bucket_of
from pipelines.online.store import OnlineStore
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.manifest import Manifest, StagedTables
from pipelines.release.part_writer import Part, PartReport
from pipelines.release.runners import LocalRunner
from pipelines.release.stage_tables import stage_tables
from tests.release.sealed import describe, seal

INLINE = LocalRunner(workers=1)
LISTS = {str(user): [user, -user, 1] for user in range(1000)}
TITLES = {str(item): f'"Title" {item} é' for item in range(300)}
VECTORS = {f"item-{i}": [float(i), np.nan, 0.1] for i in range(100)}


@pytest.fixture
def context(settings_for: Callable[..., Settings]) -> Iterator[ReleaseContext]:
    with release_context(settings_for(model_server=False), ReleaseConfig(), "test run") as opened:
        yield opened


@pytest.fixture
def manifest(context: ReleaseContext, tmp_path: Path) -> Manifest:
    lists, titles = describe("lists", "ids", LISTS), describe("titles", "text", TITLES)
    vectors = describe("vectors", "vector", VECTORS)
    return seal(context, tmp_path, [(lists, LISTS), (titles, TITLES), (vectors, VECTORS)])


def read(context: ReleaseContext, manifest: Manifest, name: str, ids: list[str]) -> dict[str, Any]:
    meta = context.online.table_meta("recs", manifest.version)[name]
    return context.online.read("recs", manifest.version, meta, ids)


@pytest.mark.parametrize("replace", [False, True])
def test_tables_are_staged_and_the_report_says_what_it_cost(
    context: ReleaseContext, manifest: Manifest, replace: bool
) -> None:
    for _ in range(2):
        staged = stage_tables(context, manifest, INLINE, replace=replace)
    assert read(context, manifest, "lists", list(LISTS)) == LISTS
    assert read(context, manifest, "titles", list(TITLES)) == TITLES
    assert {n: t.rows for n, t in staged.tables.items()} == {
        "lists": 1000,
        "titles": 300,
        "vectors": 100,
    }
    for meta in manifest.tables:
        table = staged.tables[meta.name]
        assert (table.checksum, table.payload_bytes) == (meta.checksum, meta.payload_bytes)
        assert table.redis_bytes > meta.payload_bytes
        assert table.sampled > 0
        assert table.write_seconds > 0
        assert table.verify_seconds > 0
    assert "1,400 rows in 3 tables" in staged.describe()
    assert {gate.verdict for gate in staged.gates} == {"passed"}
    assert "free of maxmemory" in staged.gates[0].reason
    assert [gate.name for gate in staged.gates[:3]] == [
        "memory",
        f"rows of {manifest.tables[0].name}",
        f"checksum of {manifest.tables[0].name}",
    ]
    assert context.registry.staging("recs", manifest.version) == staged
    assert StagedTables.model_validate_json(staged.model_dump_json()) == staged


def test_processes_write_the_same_and_their_errors_are_ours(
    context: ReleaseContext, manifest: Manifest
) -> None:
    runner = LocalRunner(workers=2)
    advanced: list[int] = []
    staged = stage_tables(context, manifest, runner)
    assert staged.tables["lists"].checksum == manifest.tables[0].checksum
    reports = runner.run(
        _pretend, [Part(m, "", manifest.files[0]) for m in manifest.tables], advanced.append
    )
    assert {r.table for r in reports} == {m.name for m in manifest.tables}
    assert sum(advanced) == 3
    part = manifest.table_parts("titles")[0]
    key = context.registry.key("recs", manifest.version, part.name)
    context.registry.objects.put_text(key, "spoiled")
    with pytest.raises(ReleaseError, match=r"^object storage at .*titles.*SHA-256 differs"):
        stage_tables(context, manifest, runner)


def _pretend(part: Part) -> PartReport:
    from pipelines.online.buckets import TableSum

    return PartReport(part.meta.name, TableSum(rows=1), 0, 0.0, 0.0)


def _die(_: Part) -> PartReport:
    import os

    os._exit(1)


def test_a_writer_process_that_dies_is_an_error_of_ours(manifest: Manifest) -> None:
    parts = [Part(meta, "", manifest.files[0]) for meta in manifest.tables]
    with pytest.raises(ServiceError, match="ended unexpectedly"):
        LocalRunner(workers=2).run(_die, parts, lambda _: None)


def test_a_leftover_of_a_killed_attempt_is_completed(
    context: ReleaseContext, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = OnlineStore.write_buckets, []

    def killed(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(OnlineStore, "write_buckets", killed)
        stage_tables(context, manifest, INLINE)
    lists = manifest.tables[0]
    assert 0 < context.online.count_rows("recs", manifest.version, lists) < lists.rows
    assert context.online.table_meta("recs", manifest.version) == {}
    assert stage_tables(context, manifest, INLINE).rows == 1400


def _spoil(context: ReleaseContext, manifest: Manifest, field: str, value: bytes | None) -> None:
    meta = manifest.tables[0]
    bucket = bucket_of(field, meta.buckets)
    key = context.online.keys("recs").bucket(meta.name, manifest.version, bucket)
    if value is None:
        context.online._redis.hdel(key, field)
    else:
        context.online._redis.hset(key, field, value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("7", b"\x01" + b"\0" * 7, "different: 7"),
        ("7", None, "missing: 7"),
        ("stranger", b"", "too many: stranger"),
    ],
)
def test_what_redis_holds_otherwise_is_named(
    context: ReleaseContext,
    manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    value: bytes | None,
    said: str,
) -> None:
    read_buckets = OnlineStore.read_buckets

    def spoiled(*args: Any) -> Iterator[Any]:
        _spoil(context, manifest, field, value)
        return read_buckets(*args)

    monkeypatch.setattr(OnlineStore, "read_buckets", spoiled)
    expected = (
        rf"recs {manifest.version}, table lists: Redis at 127\.0\.0\.1:\d+ holds another bucket "
        rf"{bucket_of(field, manifest.tables[0].buckets)} \(checksum [0-9a-f]{{16}}\) than was "
        rf"built \([0-9a-f]{{16}}\): {said}$"
    )
    with pytest.raises(VerificationError, match=expected) as error:
        stage_tables(context, manifest, INLINE)
    assert not error.value.retryable
    assert context.online.table_meta("recs", manifest.version) == {}


def test_rows_in_a_bucket_that_no_part_has_are_counted(
    context: ReleaseContext, tmp_path: Path
) -> None:
    rows = {"1": "one"}
    meta = describe("titles", "text", rows).model_copy(update={"buckets": 50})
    manifest = seal(context, tmp_path, [(meta, rows)])
    empty = (bucket_of("1", 50) + 1) % 50
    key = context.online.keys("recs").bucket("titles", manifest.version, empty)
    context.online._redis.hset(key, "stranger", "x")
    with pytest.raises(VerificationError, match="holds 2 rows of 1"):
        stage_tables(context, manifest, INLINE)


def test_parts_that_are_not_what_was_built_are_noticed(
    context: ReleaseContext, tmp_path: Path
) -> None:
    meta = describe("titles", "text", TITLES)
    other = meta.model_copy(update={"checksum": "0123456789abcdef"})
    manifest = seal(context, tmp_path, [(other, TITLES)])
    expected = f"checksum {meta.checksum}, but 0123456789abcdef is what the manifest says"
    with pytest.raises(VerificationError, match=expected):
        stage_tables(context, manifest, INLINE)


def test_tables_made_before_there_were_checksums_are_staged(
    context: ReleaseContext, tmp_path: Path
) -> None:
    full = describe("titles", "text", TITLES)
    old = TableMeta.model_validate(
        full.model_dump(exclude={"checksum", "payload_bytes", "longest"})
    )
    staged = stage_tables(context, seal(context, tmp_path, [(old, TITLES)]), INLINE)
    assert staged.tables["titles"].checksum == full.checksum
    assert staged.gates[0].reason.endswith("without titles, never measured")


def test_the_sample_goes_through_the_readers_path_and_changes(
    context: ReleaseContext, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_packed, asked = OnlineStore.read_packed, []

    def watched(self: OnlineStore, *args: Any) -> dict[str, bytes]:
        asked.append(frozenset(args[-1]))
        answers = read_packed(self, *args)
        return {**answers, "no": b""} if len(asked) < 19 else dict.fromkeys(answers, b"wrong")

    monkeypatch.setattr(OnlineStore, "read_packed", watched)
    stage_tables(context, manifest, INLINE)
    stage_tables(context, manifest, INLINE)
    half = len(asked) // 2
    assert asked[:half] != asked[half:], "the same sample twice"
    with pytest.raises(VerificationError, match=re.compile(r"table lists, id \d+: Redis at .*")):
        stage_tables(context, manifest, INLINE)
