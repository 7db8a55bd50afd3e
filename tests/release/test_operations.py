from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipelines.errors import ReleaseError
from pipelines.models_config import Unit
from pipelines.operations import (
    approval_text,
    live_now,
    online_check,
    reject,
    require_well,
    restore_units,
)
from pipelines.release.activate import activate
from pipelines.release.context import ReleaseContext
from pipelines.steps import SUMMARY, _remove_old_runs
from tests.release.test_restore import empty_redis
from tests.release.versions import build, live_version, plan, release, stage

UNIT: Unit = "recs"
TODAY = datetime.now(UTC).date()


def test_a_check_repairs_what_redis_lost_and_compares_answers(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    manifest = release(tables_only, tmp_path, UNIT, 1, tmp_path, day=TODAY)
    (well,) = online_check(tables_only.settings, "a test")
    assert (well.unit, well.live, well.repaired, well.problems) == (UNIT, manifest.version, [], [])
    assert well.checks
    require_well([well])
    empty_redis(tables_only)
    (repaired,) = online_check(tables_only.settings, "a test")
    assert any("staged again" in line for line in repaired.repaired)
    assert repaired.problems == []
    assert live_version(tables_only, UNIT) == manifest.version


def test_a_check_says_that_what_is_live_is_stale(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    old = release(tables_only, tmp_path, UNIT, 1, tmp_path, day=TODAY - timedelta(days=3))
    checks = online_check(tables_only.settings, "a test")
    with pytest.raises(ReleaseError, match=rf"recs {old.version} is stale: .* 3 days ago, at most"):
        require_well(checks)


def test_one_unit_that_fails_does_not_keep_others_from_their_check(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    release(served, tmp_path, "recs", 1, models, day=TODAY)
    broken = release(served, tmp_path, "embeddings", 1, models, day=TODAY)
    served.registry.objects.delete(f"models/embeddings/{broken.version}/manifest.json")
    checks = {checked.unit: checked for checked in online_check(served.settings, "a test")}
    assert checks["recs"].problems == []
    (problem,) = checks["embeddings"].problems
    assert f"embeddings has no sealed version {broken.version}" in problem


def test_all_units_are_restored_and_failures_named(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    manifest = release(tables_only, tmp_path, UNIT, 1, tmp_path, day=TODAY)
    broken = release(tables_only, tmp_path, "embeddings", 1, tmp_path, day=TODAY)
    tables_only.registry.objects.delete(f"models/embeddings/{broken.version}/manifest.json")
    empty_redis(tables_only)
    with pytest.raises(ReleaseError, match="embeddings: embeddings has no sealed version"):
        restore_units(tables_only.settings, None, "a test")
    assert live_version(tables_only, UNIT) == manifest.version
    assert set(restore_units(tables_only.settings, UNIT, "a test")) == {UNIT}


def test_what_is_live_is_one_line_also_without_redis(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    assert live_now(tables_only.settings) == "live now: nothing"
    manifest = release(tables_only, tmp_path, UNIT, 1, tmp_path)
    assert live_now(tables_only.settings) == f"live now: recs {manifest.version}"
    nowhere = tables_only.settings.model_copy(
        update={"redis_url": SecretStr("redis://127.0.0.1:1/0")}
    )
    assert live_now(nowhere).startswith("what is live can't be read: Redis at 127.0.0.1:1")


def test_a_rejected_version_goes_live_by_no_run(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    first = release(tables_only, tmp_path, UNIT, 1, tmp_path)
    second = build(tables_only, tmp_path, UNIT, 2, tmp_path)
    stage(tables_only, second)
    text = approval_text(tables_only.settings, plan(UNIT, 2), UNIT)
    assert f"Live now: {first.version}" in text
    assert "* auc 0.7" in text
    reject(tables_only.settings, plan(UNIT, 2), UNIT, "rejected by Ann")
    ended = activate(tables_only, second, "always")
    assert ended.outcome == "refused"
    assert f"version {second.version} was rejected by Ann" in ended.reason
    assert live_version(tables_only, UNIT) == first.version


def test_old_hand_over_folders_go_but_not_those_of_runs_under_way(tmp_path: Path) -> None:
    ended = [202603010001, 202603020001, 202603030001, 202603040001]
    for version in (*ended, 202602010001, 202602020001):
        (tmp_path / str(version)).mkdir()
    for version in ended:
        (tmp_path / str(version) / SUMMARY).touch()
    _remove_old_runs(tmp_path, keep=202602010001)
    left = sorted(int(path.name) for path in tmp_path.iterdir())
    assert left == [202602010001, 202602020001, 202603030001, 202603040001]
