"""What several processes, late ones among them, do to one unit at the same time."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local.health import free_ports
from pipelines.config import Replica, RetentionConfig
from pipelines.errors import FerryError, ReleaseError, ServiceError
from pipelines.online.tf_serving import ModelServer
from pipelines.release import retention as retention_module
from pipelines.release.activate import activate
from pipelines.release.audit import audit
from pipelines.release.context import ReleaseContext
from pipelines.release.desired import DesiredState
from pipelines.release.restore import reconcile, restore
from pipelines.release.retention import retain
from pipelines.release.rollback import roll_back
from pipelines.release.serving_config import configured_labels, read_config
from pipelines.release.stage_model import load_model
from pipelines.release.switch import settle
from tests.release.versions import RUNNER, build, live_version, release, stage

UNIT = "recs"
RANKER = "embedding_mlp"


def with_dead_replica(context: ReleaseContext) -> ReleaseContext:
    (port,) = free_ports(1)
    replicas = (*context.settings.tf_serving, Replica("127.0.0.1", port, port))
    return replace(context, settings=context.settings.model_copy(update={"tf_serving": replicas}))


def labels(context: ReleaseContext) -> dict[str, int]:
    return configured_labels(read_config(context.settings.model_dir), RANKER)


def test_loading_the_live_version_again_never_unloads_it(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    release(served, tmp_path, RANKER, 1, models)
    live = release(served, tmp_path, RANKER, 2, models)
    with pytest.raises(FerryError):
        load_model(with_dead_replica(served), live)
    with ModelServer(served.settings.tf_serving[0]) as server:
        assert server.versions(RANKER)[live.version][0] == "AVAILABLE"
    assert labels(served) == {"stable": live.version, "canary": live.version}
    audit(served, RANKER)


def test_a_staged_version_of_another_run_stays_loaded(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    release(served, tmp_path, RANKER, 1, models)
    one = build(served, tmp_path, RANKER, 2, models)
    stage(served, one)
    two = build(served, tmp_path, RANKER, 3, models)
    stage(served, two)
    assert activate(served, one).outcome == "live"
    assert activate(served, two).outcome == "live"


def test_labels_follow_a_rollback_that_comes_while_the_next_version_is_staged(
    served: ReleaseContext, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = (release(served, tmp_path, RANKER, n, models) for n in (1, 2))
    candidate = build(served, tmp_path, RANKER, 3, models)

    def rolled_back_meanwhile(*_: Any) -> None:
        roll_back(served, RANKER, None, "wrong prices", RUNNER)

    monkeypatch.setattr("pipelines.release.stage_model.wait_available", rolled_back_meanwhile)
    stage(served, candidate)
    assert labels(served) == {"stable": first.version, "canary": candidate.version}


def test_a_restore_puts_the_labels_on_what_is_live(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    _, second = (release(served, tmp_path, RANKER, n, models) for n in (1, 2))
    for key in served.online._redis.scan_iter(f"{served.online.prefix}:*"):
        served.online._redis.delete(key)
    restore(served, RANKER, RUNNER)
    assert labels(served) == {"stable": second.version, "canary": second.version}


def test_retention_leaves_what_went_live_since_it_looked(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = build(tables_only, tmp_path, UNIT, 1, tmp_path)
    for attempt in (2, 3, 4):
        release(tables_only, tmp_path, UNIT, attempt, tmp_path)
    stage(tables_only, old)
    plan = retention_module._plan

    def then_it_goes_live(*args: Any) -> Any:
        planned = plan(*args)
        assert old.version in planned[0].object_storage
        assert activate(tables_only, old, "always").outcome == "live"
        return planned

    monkeypatch.setattr(retention_module, "_plan", then_it_goes_live)
    retain(tables_only, UNIT, RetentionConfig(online=1, stored=1), dry_run=False)
    assert live_version(tables_only, UNIT) == old.version
    audit(tables_only, UNIT)


def test_what_retention_removed_does_not_go_live(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = build(tables_only, tmp_path, UNIT, 1, tmp_path)
    live = [release(tables_only, tmp_path, UNIT, n, tmp_path).version for n in (2, 3, 4)][-1]
    stage(tables_only, old)

    def removed_after_it_was_verified(*_: Any) -> list[str]:
        retain(tables_only, UNIT, RetentionConfig(online=1, stored=1), dry_run=False)
        return []

    target = "pipelines.release.activate.verify_version"
    monkeypatch.setattr(target, removed_after_it_was_verified)
    with pytest.raises(ReleaseError, match="has no sealed version"):
        activate(tables_only, old, "always")
    assert live_version(tables_only, UNIT) == live
    audit(tables_only, UNIT)


@pytest.mark.parametrize("where", ["the commit fails", "killed after the move"])
def test_a_retried_rollback_goes_back_once(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    _, second, third = (release(tables_only, tmp_path, UNIT, n, tmp_path) for n in (1, 2, 3))
    with monkeypatch.context() as patch:

        def failing(*_: Any) -> DesiredState:
            raise ServiceError("object storage: 503") if where == "the commit fails" else _Killed

        patch.setattr(tables_only.registry, "commit", failing)
        with pytest.raises((ServiceError, _Killed)):
            roll_back(tables_only, UNIT, None, "wrong prices", RUNNER, once=True)
    for _ in range(2):
        done = roll_back(tables_only, UNIT, None, "wrong prices", RUNNER, once=True)
        assert (done.version, done.replaced) == (second.version, third.version)
    assert live_version(tables_only, UNIT) == second.version
    audit(tables_only, UNIT)


class _Killed(BaseException):
    pass


def spoiled_at_its_move(
    context: ReleaseContext, folder: Path, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> int:
    """Stage a version whose answers turn wrong in the moment of its switch."""
    bad = build(context, folder, UNIT, attempt, folder)
    stage(context, bad)
    meta = next(meta for meta in bad.tables if meta.name == "popular")
    (key,) = context.online.keys(UNIT).buckets(meta, bad.version)
    move = context.online.pointers.move

    def spoiling(unit: str, lease: Any, **moved: Any) -> None:
        context.online._redis.hset(key, "all", b"\x01" + b"\x00" * 7)
        move(unit, lease, **moved)

    monkeypatch.setattr(context.online.pointers, "move", spoiling)
    return bad.version


def test_a_going_back_that_is_interrupted_is_completed_not_undone(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = release(tables_only, tmp_path, UNIT, 1, tmp_path)
    with monkeypatch.context() as patch:
        bad = spoiled_at_its_move(tables_only, tmp_path, patch, 2)
        spoiling = tables_only.online.pointers.move

        def once(unit: str, lease: Any, **moved: Any) -> None:
            if moved["target"].version == first.version:
                raise ServiceError("Redis: connection reset")
            spoiling(unit, lease, **moved)

        patch.setattr(tables_only.online.pointers, "move", once)
        with pytest.raises(ReleaseError, match="could not be put back at once"):
            activate(tables_only, tables_only.registry.sealed(UNIT, bad))
    assert live_version(tables_only, UNIT) == bad
    reconcile(tables_only, UNIT, RUNNER)
    assert live_version(tables_only, UNIT) == first.version
    assert reconcile(tables_only, UNIT, RUNNER) == []
    audit(tables_only, UNIT)


def test_a_late_write_with_the_same_number_is_not_taken_for_the_move_that_was_made(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    first, _ = (release(tables_only, tmp_path, UNIT, n, tmp_path) for n in (1, 2))
    third = release(tables_only, tmp_path, UNIT, 3, tmp_path)
    made = tables_only.registry.active(UNIT)
    assert made is not None
    late = {"version": first.version, "state": "switching", "kind": "rollback", "backward": True}
    tables_only.registry.set_active(made.model_copy(update=late))
    assert settle(tables_only, UNIT) == f"recs: the desired state is {third.version} again"
    assert tables_only.registry.active(UNIT) == made
    with pytest.raises(ReleaseError, match="another run moved the unit meanwhile"):
        tables_only.registry.commit(made.model_copy(update={"version": first.version}))


def test_without_its_desired_state_a_unit_still_goes_back_to_what_was_live(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, second, third = (release(tables_only, tmp_path, UNIT, n, tmp_path) for n in (1, 2, 3))
    roll_back(tables_only, UNIT, None, "wrong prices", RUNNER)
    tables_only.registry.clear_active(UNIT)
    # What was rolled back stays so.
    assert activate(tables_only, third).outcome == "refused"
    tables_only.registry.clear_active(UNIT)
    with monkeypatch.context() as patch:
        bad = spoiled_at_its_move(tables_only, tmp_path, patch, 4)
        with pytest.raises(FerryError, match="table popular, id all"):
            activate(tables_only, tables_only.registry.sealed(UNIT, bad))
    assert live_version(tables_only, UNIT) == second.version
    audit(tables_only, UNIT)


def test_whatever_goes_wrong_after_the_move_undoes_it(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = release(tables_only, tmp_path, UNIT, 1, tmp_path)
    second = build(tables_only, tmp_path, UNIT, 2, tmp_path)
    stage(tables_only, second)

    def no_space(*_: Any) -> list[str]:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("pipelines.release.switch.canary_reads", no_space)
    with pytest.raises(OSError, match="No space"):
        activate(tables_only, second)
    assert live_version(tables_only, UNIT) == first.version
    audit(tables_only, UNIT)


def test_a_redis_with_older_data_does_not_lower_the_bar(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    release(tables_only, tmp_path, UNIT, 1, tmp_path)
    key = tables_only.online.pointers.key(UNIT)
    old = tables_only.online._redis.dump(key)
    second = build(tables_only, tmp_path, UNIT, 2, tmp_path)
    third = release(tables_only, tmp_path, UNIT, 3, tmp_path)
    tables_only.online._redis.restore(key, 0, old, replace=True)  # type: ignore[arg-type]
    reason = activate(tables_only, second).reason
    assert reason == f"version {second.version} is older than {third.version}, which is live"
