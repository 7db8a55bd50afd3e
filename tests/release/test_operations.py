from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipelines.errors import ReleaseError
from pipelines.lake import RunPaths
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
from pipelines.release.outcome import RunSummary, UnitResult
from pipelines.steps.ending import require_success
from pipelines.steps.run_folder import remove_old_runs
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


def test_old_hand_over_folders_go_but_not_those_that_are_worked_in(tmp_path: Path) -> None:
    under_way, planned = 202602010001, 202602020001
    to_be_repaired = 202602030001
    ended = [202603010001, 202603020001, 202603030001, 202603040001]
    for version in (under_way, planned, to_be_repaired, *ended):
        (tmp_path / str(version)).mkdir()
    for version in (to_be_repaired, *ended):
        outcome = "failed" if version == to_be_repaired else "live"
        unit = {"unit": UNIT, "outcome": outcome, "version": None, "reason": ""}
        summary = {"run_date": str(TODAY), "version": version, "units": [unit]}
        Path(RunPaths(str(tmp_path / str(version))).summary).write_text(json.dumps(summary))
    remove_old_runs(tmp_path, keep=planned)
    left = sorted(int(path.name) for path in tmp_path.iterdir())
    assert left == [under_way, planned, to_be_repaired, *ended[-2:]]


def test_a_refusal_is_told_beside_a_failure() -> None:
    units = [
        UnitResult(unit="recs", outcome="failed", version=None, reason="1 was not built"),
        UnitResult(unit="embeddings", outcome="refused", version=1, reason="recall is low"),
        UnitResult(unit="ctr_pmml", outcome="live", version=2, reason=""),
    ]
    with pytest.raises(
        ReleaseError,
        match=r"1 of 3 units failed: recs: 1 was not built, live is nothing; "
        "not live, by rule: embeddings: recall is low$",
    ):
        require_success(RunSummary(run_date=TODAY, version=2, units=units))
