from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config import RetentionConfig
from pipelines.errors import ReleaseError
from pipelines.online.tf_serving import ModelServer
from pipelines.release.audit import audit
from pipelines.release.context import ReleaseContext
from pipelines.release.retention import build_lease, retain
from pipelines.release.rollback import roll_back
from pipelines.release.switch import hold_staging
from tests.release.versions import RUNNER, build, live_version, release, stage

UNIT = "embedding_mlp"
CONFIG = RetentionConfig(online=2, stored=3)


def redis_versions(context: ReleaseContext, unit: str) -> set[int]:
    keys = context.online._redis.scan_iter(f"{context.online.prefix}:{unit}:*:*")
    return {int(key.decode().split(":")[3]) for key in keys}


def test_old_versions_go_everywhere_and_the_rest_answers(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    released = [release(served, tmp_path, UNIT, n, models).version for n in range(1, 6)]
    planned = retain(served, UNIT, CONFIG, dry_run=True)
    assert redis_versions(served, UNIT) == set(released), "a dry run removed something"
    removed = retain(served, UNIT, CONFIG, dry_run=False)
    assert removed == planned
    assert removed.kept == released[:1:-1]
    assert removed.object_storage == released[:2]
    assert redis_versions(served, UNIT) == set(released[3:])
    folder = served.settings.model_dir / UNIT
    assert {p.name for p in folder.iterdir()} == {str(v) for v in released[3:]}
    with ModelServer(served.settings.tf_serving[0]) as server:
        states = {v: state for v, (state, _) in server.versions(UNIT).items()}
    assert {v for v, state in states.items() if state == "AVAILABLE"} == set(released[3:])
    keys = set(served.registry.objects.list_keys(f"models/{UNIT}/"))
    assert {int(key.split("/")[2]) for key in keys} == set(released[2:])
    retired = set(served.registry.objects.list_keys(f"releases/{UNIT}/retired/"))
    assert retired == {f"releases/{UNIT}/retired/{v}.json" for v in released[:2]}
    audit(served, UNIT)
    assert retain(served, UNIT, CONFIG, dry_run=False).is_empty
    # What is stored but not online any more can still be rolled back to.
    assert roll_back(served, UNIT, released[2], "wrong", RUNNER).staged_again


def test_what_is_live_its_predecessor_and_what_is_newer_stay(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    released = [release(tables_only, tmp_path, "recs", n, tmp_path).version for n in range(1, 7)]
    for _ in range(2):
        roll_back(tables_only, "recs", None, "wrong", RUNNER)
    assert live_version(tables_only, "recs") == released[3]
    least = RetentionConfig(online=1, stored=1)
    removed = retain(tables_only, "recs", least, dry_run=False)
    assert sorted(removed.kept) == released[2:]
    assert redis_versions(tables_only, "recs") == set(released[2:])
    assert roll_back(tables_only, "recs", None, "wrong", RUNNER).version == released[2]


def test_with_nothing_live_nothing_goes(tables_only: ReleaseContext, tmp_path: Path) -> None:
    for attempt in range(1, 5):
        stage(tables_only, build(tables_only, tmp_path, "recs", attempt, tmp_path))
    least = RetentionConfig(online=1, stored=1)
    assert retain(tables_only, "recs", least, dry_run=False).is_empty


def test_leftovers_go_unless_they_are_newer_or_being_built(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    live = release(tables_only, tmp_path, "recs", 5, tmp_path).version
    objects, key = tables_only.registry.objects, tables_only.registry.key
    for version in (live - 2, live - 1, live + 1):
        objects.put_text(key("recs", version, "golden.json"), "{}")
    with tables_only.online.leases.hold(build_lease("recs", live - 1), "a backfill"):
        removed = retain(tables_only, "recs", CONFIG, dry_run=False)
    assert removed.leftovers == [live - 2]
    assert tables_only.registry.versions("recs") == [live + 1, live, live - 1]


def test_rows_of_a_killed_staging_go_too(tables_only: ReleaseContext, tmp_path: Path) -> None:
    half = build(tables_only, tmp_path, "recs", 1, tmp_path)
    stage(tables_only, half)
    # As a killed attempt leaves it: rows, but no description of the tables.
    tables_only.online._redis.delete(tables_only.online.keys("recs").meta(half.version))
    released = [release(tables_only, tmp_path, "recs", n, tmp_path).version for n in (2, 3)]
    removed = retain(tables_only, "recs", CONFIG, dry_run=False)
    assert removed.redis == [half.version]
    assert redis_versions(tables_only, "recs") == set(released)


def test_retention_keeps_off_while_a_version_is_staged(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    from dataclasses import replace

    release(tables_only, tmp_path, "recs", 1, tmp_path)
    other = replace(tables_only, owner="run two")
    with (
        hold_staging(other, "recs"),
        pytest.raises(ReleaseError, match=r"recs \(staging\) is being changed by run two"),
    ):
        retain(tables_only, "recs", CONFIG, dry_run=False)
