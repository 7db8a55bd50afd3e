from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest

from pipelines.errors import ReleaseError
from pipelines.online.leases import LeaseLostError
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.registry import MANIFEST, UnknownVersionError
from pipelines.run import make_version
from tests.release.versions import DAY, build

UNIT = "recs"
VERSION = make_version(DAY, 1)


def test_runs_at_the_same_moment_get_different_versions(tables_only: ReleaseContext) -> None:
    def reserve(run: int) -> int:
        with release_context(tables_only.settings, tables_only.config, f"run {run}") as context:
            return context.registry.reserve_version(context.online.leases, DAY, f"run {run}")

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(reserve, range(8)))
    assert sorted(versions) == [make_version(DAY, attempt) for attempt in range(1, 9)]


def test_a_date_has_no_more_attempts_than_its_versions_have_digits(
    tables_only: ReleaseContext,
) -> None:
    day = date(2026, 3, 2)
    body = '{"run_id": "run", "at": "2026-03-02T00:00:00Z"}'
    tables_only.registry.objects.put_text(f"runs/{day}/9999.json", body)
    with pytest.raises(ReleaseError, match="has used all 9999 attempts"):
        tables_only.registry.reserve_version(tables_only.online.leases, day, "another run")


def test_a_document_that_is_not_ours_is_named(tables_only: ReleaseContext) -> None:
    tables_only.registry.objects.put_text(f"releases/{UNIT}/active.json", '{"version": "x"}')
    with pytest.raises(ReleaseError, match=r"releases/recs/active\.json: the document is corrupt"):
        tables_only.registry.active(UNIT)


def test_a_sealed_version_is_not_built_upon(tables_only: ReleaseContext, tmp_path: Path) -> None:
    manifest = build(tables_only, tmp_path, UNIT, 1, tmp_path)
    with pytest.raises(ReleaseError, match="is sealed: its files are not removed"):
        tables_only.registry.remove_strays(UNIT, manifest.version, ())


def test_an_overtaken_build_writes_nothing(tables_only: ReleaseContext, tmp_path: Path) -> None:
    def overtaken() -> None:
        raise LeaseLostError("another attempt took over")

    with pytest.raises(LeaseLostError):
        build(tables_only, tmp_path, UNIT, 1, tmp_path, confirm=overtaken)
    assert tables_only.registry.versions(UNIT) == []


def test_what_a_killed_build_left_is_not_part_of_the_version(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    version = make_version(DAY, 1)
    stray = tables_only.registry.key(UNIT, version, "tables/user_items/part-00007.parquet")
    tables_only.registry.objects.put_text(stray, "{}")
    manifest = build(tables_only, tmp_path, UNIT, 1, tmp_path)
    folder = tables_only.registry.key(UNIT, version, "")
    stored = {key.removeprefix(folder) for key in tables_only.registry.objects.list_keys(folder)}
    assert stored == {entry.name for entry in manifest.files} | {MANIFEST}


def test_a_retired_version_is_gone_but_its_manifest_is_kept(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    manifest = build(tables_only, tmp_path, UNIT, 1, tmp_path)
    tables_only.registry.retire(manifest)
    assert tables_only.registry.versions(UNIT) == []
    with pytest.raises(UnknownVersionError, match="recs has no sealed version"):
        tables_only.registry.sealed(UNIT, manifest.version)
    key = f"releases/{UNIT}/retired/{manifest.version}.json"
    assert tables_only.registry.objects.get_text(key) == manifest.model_dump_json(indent=2)


def test_a_report_is_a_page_that_its_run_leads_to(tables_only: ReleaseContext) -> None:
    registry, objects = tables_only.registry, tables_only.registry.objects
    run_id = "manual__2026-03-01T03:00:00+00:00/../é"
    assert registry.report(VERSION) is None
    assert registry.report_version(run_id) is None
    assert registry.put_report(VERSION, run_id, "<p>é</p>") == f"reports/{VERSION}.html"
    assert registry.report(VERSION) == "<p>é</p>"
    assert registry.report_version(run_id) == VERSION
    assert registry.report_content(VERSION) == "{}"
    registry.put_report(VERSION, run_id, "<p>again</p>", '{"units": 2}')
    registry.put_report(VERSION + 1, "another", "<p>later</p>")
    assert registry.report(VERSION) == "<p>again</p>"
    assert registry.report_content(VERSION) == '{"units": 2}'
    assert registry.reports() == [VERSION + 1, VERSION]
    head = objects._client.head_object(Bucket=objects.bucket, Key=f"reports/{VERSION}.html")
    assert head["ContentType"].startswith("text/html")
    keys = list(objects.list_keys("reports/runs/"))
    assert "reports/runs/manual__2026-03-01T03%3A00%3A00%2B00%3A00%2F..%2F%C3%A9.json" in keys


def test_an_unsealed_version_does_not_exist(tables_only: ReleaseContext) -> None:
    tables_only.registry.objects.put_text(tables_only.registry.key("recs", 5, "golden.json"), "{}")
    assert tables_only.registry.manifest("recs", 5) is None
    assert tables_only.registry.versions("recs") == [5]
    with pytest.raises(ReleaseError, match="recs has no sealed version 5"):
        tables_only.registry.sealed("recs", 5)


def test_reserving_versions(tables_only: ReleaseContext) -> None:
    def reserve(run_id: str, day: date = DAY) -> int:
        return tables_only.registry.reserve_version(tables_only.online.leases, day, run_id)

    assert reserve("a") == make_version(DAY, 1)
    assert reserve("b") == make_version(DAY, 2)
    assert reserve("a") == make_version(DAY, 1), "a retry keeps its version"
    assert reserve("c", date(2026, 3, 2)) == make_version(date(2026, 3, 2), 1)
