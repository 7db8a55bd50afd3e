from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.errors import ReleaseError, VerificationError
from pipelines.online.layout import bucket_of
from pipelines.release.audit import audit
from pipelines.release.context import ReleaseContext
from pipelines.release.restore import reconcile, restore
from pipelines.release.rollback import roll_back
from pipelines.release.staged import stage_missing_tables
from tests.release.versions import RUNNER, live_version, release

UNIT = "embedding_mlp"


def empty_redis(context: ReleaseContext) -> None:
    for key in context.online._redis.scan_iter(f"{context.online.prefix}:*"):
        context.online._redis.delete(key)


def test_an_emptied_redis_is_rebuilt_and_rollback_still_works(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    first, second = (release(served, tmp_path, UNIT, n, models) for n in (1, 2))
    before = served.online.pointers.get(UNIT)
    empty_redis(served)
    done = restore(served, UNIT, RUNNER)
    assert any("the pointer names" in line for line in done)
    assert served.online.pointers.get(UNIT) == before
    audit(served, UNIT)
    assert roll_back(served, UNIT, None, "wrong", RUNNER).staged_again is False
    assert live_version(served, UNIT) == first.version
    assert second.version > first.version


def test_an_emptied_disk_of_the_model_servers_is_rebuilt(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    first, second = (release(served, tmp_path, UNIT, n, models) for n in (1, 2))
    folder = served.settings.model_dir / UNIT
    shutil.rmtree(folder)
    (served.settings.model_dir / "models.config").unlink()
    restore(served, UNIT, RUNNER)
    assert {p.name for p in folder.iterdir()} == {str(first.version), str(second.version)}
    audit(served, UNIT)


def test_a_damaged_file_on_the_disk_is_replaced(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    manifest = release(served, tmp_path, UNIT, 1, models)
    file = served.settings.model_dir / UNIT / str(manifest.version) / "saved_model.pb"
    good = file.read_bytes()
    file.write_bytes(good[: len(good) // 2])
    restore(served, UNIT, RUNNER)
    assert file.read_bytes() == good


def test_a_restore_of_what_is_whole_changes_nothing(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    release(tables_only, tmp_path, "recs", 1, tmp_path)
    before = tables_only.online.pointers.get("recs")
    assert reconcile(tables_only, "recs", RUNNER) == []
    assert all(line.endswith("agree") for line in restore(tables_only, "recs", RUNNER))
    assert tables_only.online.pointers.get("recs") == before
    assert len(tables_only.registry.history("recs")) == 1


def test_lost_rows_of_a_live_version_are_noticed_and_written_again(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    manifest = release(tables_only, tmp_path, "recs", 1, tmp_path)
    meta = next(meta for meta in manifest.tables if meta.name == "user_items")
    key = tables_only.online.keys("recs").bucket(
        meta.name, manifest.version, bucket_of("42", meta.buckets)
    )
    tables_only.online._redis.delete(key)
    with pytest.raises(ReleaseError, match=r"table user_items: Redis at .* holds"):
        audit(tables_only, "recs")
    done = reconcile(tables_only, "recs", RUNNER)
    assert done[0].startswith("staged again: recs")
    audit(tables_only, "recs")
    assert tables_only.client.recommend("42").items[0].item_id == "1"


def test_a_unit_that_was_never_released_can_t_be_restored(tables_only: ReleaseContext) -> None:
    with pytest.raises(ReleaseError, match="nothing of it was ever live"):
        restore(tables_only, "recs", RUNNER)
    assert reconcile(tables_only, "recs", RUNNER) == []


def test_a_redis_that_came_back_with_older_data_follows_object_storage(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    first = release(tables_only, tmp_path, "recs", 1, tmp_path)
    key = tables_only.online.pointers.key("recs")
    old = tables_only.online._redis.dump(key)
    second = release(tables_only, tmp_path, "recs", 2, tmp_path)
    tables_only.online._redis.restore(key, 0, old, replace=True)  # type: ignore[arg-type]
    assert live_version(tables_only, "recs") == first.version
    assert reconcile(tables_only, "recs", RUNNER) == [
        f"recs: the pointer names {second.version} again"
    ]
    assert live_version(tables_only, "recs") == second.version


def test_a_desired_state_that_was_lost_is_taken_from_the_pointer(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    manifest = release(tables_only, tmp_path, "recs", 1, tmp_path)
    tables_only.registry.clear_active("recs")
    (done,) = reconcile(tables_only, "recs", RUNNER)
    assert done == f"recs: the desired state is {manifest.version} again"
    audit(tables_only, "recs")


def test_a_value_that_was_overwritten_is_put_right_by_a_restore(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    manifest = release(tables_only, tmp_path, "recs", 1, tmp_path)
    meta = next(meta for meta in manifest.tables if meta.name == "user_items")
    key = tables_only.online.keys("recs").bucket(
        meta.name, manifest.version, bucket_of("42", meta.buckets)
    )
    tables_only.online._redis.hset(key, "42", b"\x07" + b"\x00" * 7)
    with pytest.raises(VerificationError, match="table user_items: Redis at"):
        audit(tables_only, "recs")
    assert any("its tables differed" in line for line in restore(tables_only, "recs", RUNNER))
    audit(tables_only, "recs")


def test_what_is_staged_whole_is_not_written_again(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    manifest = release(tables_only, tmp_path, "recs", 1, tmp_path)
    before = tables_only.registry.staging("recs", manifest.version)
    assert stage_missing_tables(tables_only, manifest, RUNNER) is None
    assert tables_only.registry.staging("recs", manifest.version) == before
