"""The switch and the rules around it, on real Redis, object storage and a model server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import ServiceError
from pipelines.evaluation.gates import GateResult
from pipelines.online.leases import LeaseLostError
from pipelines.release.activate import activate, refusal
from pipelines.release.context import ReleaseContext
from pipelines.release.desired import DesiredState
from pipelines.release.rollback import roll_back
from pipelines.release.switch import hold, settle
from tests.release.versions import RUNNER, build, live_version, release, stage

UNIT = "recs"


def desired(context: ReleaseContext) -> DesiredState:
    state = context.registry.active(UNIT)
    assert state is not None
    return state


def test_object_storage_redis_and_history_tell_the_same(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    released = [release(tables_only, tmp_path, UNIT, n, tmp_path).version for n in (1, 2, 3)]
    state, pointer = desired(tables_only), tables_only.online.pointers.get(UNIT)
    assert state.pointer() == pointer
    assert pointer is not None
    assert (pointer.version, pointer.previous, pointer.replaced, pointer.epoch) == (
        released[2],
        released[1],
        released[1],
        3,
    )
    history = tables_only.registry.history(UNIT)
    assert [moved.version for moved in history] == released
    assert {moved.state for moved in history} == {"live"}
    assert [moved.who for moved in history] == ["a test"] * 3


def test_an_older_version_goes_live_only_when_asked(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    older = build(tables_only, tmp_path, UNIT, 1, tmp_path)
    newer = release(tables_only, tmp_path, UNIT, 2, tmp_path)
    for mode, reason in (("if_newest", "is older than"), ("never", "asked to leave alone")):
        activation = activate(tables_only, older, mode)  # type: ignore[arg-type]
        assert activation.outcome == "refused"
        assert reason in activation.reason
        assert live_version(tables_only, UNIT) == newer.version
    stage(tables_only, older)
    assert activate(tables_only, older, "always").outcome == "live"
    pointer = tables_only.online.pointers.get(UNIT)
    assert pointer is not None
    assert (pointer.version, pointer.previous, pointer.replaced) == (
        older.version,
        newer.version,
        newer.version,
    )
    # Back to what was live just before; a retry of the older date's run does not undo that.
    assert roll_back(tables_only, UNIT, None, "too old", RUNNER).version == newer.version
    assert activate(tables_only, older, "always").outcome == "refused"


def test_an_emptied_redis_does_not_let_an_older_version_go_live(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    older = build(tables_only, tmp_path, UNIT, 1, tmp_path)
    newer = release(tables_only, tmp_path, UNIT, 2, tmp_path)
    tables_only.online._redis.delete(tables_only.online.pointers.key(UNIT))
    reason = f"version {older.version} is older than {newer.version}, which is live"
    assert refusal(tables_only, older, "if_newest") == reason


def test_a_version_that_its_gates_refused_never_goes_live(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    live = release(tables_only, tmp_path, UNIT, 1, tmp_path)
    gate = GateResult(group="model", name="auc", verdict="refused", reason="auc 0.4 is below 0.5")
    refused = build(tables_only, tmp_path, UNIT, 2, tmp_path).model_copy(update={"gates": [gate]})
    for mode in ("if_newest", "always"):
        activation = activate(tables_only, refused, mode)
        assert activation.outcome == "refused"
        assert "auc 0.4 is below 0.5" in activation.reason
    assert live_version(tables_only, UNIT) == live.version


def test_a_retry_does_not_bring_back_what_was_rolled_back(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    first = release(tables_only, tmp_path, UNIT, 1, tmp_path)
    bad = release(tables_only, tmp_path, UNIT, 2, tmp_path)
    roll_back(tables_only, UNIT, None, "wrong prices", RUNNER)
    activation = activate(tables_only, bad, "always")
    assert activation.outcome == "refused"
    assert "withdrawn: wrong prices" in activation.reason
    assert live_version(tables_only, UNIT) == first.version
    # The next run's version is another one.
    newer = release(tables_only, tmp_path, UNIT, 3, tmp_path)
    assert live_version(tables_only, UNIT) == newer.version
    assert bad.version in desired(tables_only).withdrawn


def test_a_process_that_was_taken_over_changes_nothing(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = release(tables_only, tmp_path, UNIT, 1, tmp_path)
    late = build(tables_only, tmp_path, UNIT, 2, tmp_path)
    stage(tables_only, late)
    newer = build(tables_only, tmp_path, UNIT, 3, tmp_path)
    stage(tables_only, newer)
    set_active = tables_only.registry.set_active

    def slowly(state: DesiredState) -> None:
        # The process stands still here, its retry and the next run overtake it.
        set_active(state)
        if state.version == late.version and state.state == "switching":
            monkeypatch.setattr(tables_only.registry, "set_active", set_active)
            activate(tables_only, newer)

    monkeypatch.setattr(tables_only.registry, "set_active", slowly)
    with pytest.raises(LeaseLostError, match="took over"):
        activate(tables_only, late)
    assert live_version(tables_only, UNIT) == newer.version
    assert desired(tables_only).version == newer.version
    assert desired(tables_only).state == "live"
    assert first.version in desired(tables_only).was_live


def test_a_late_write_of_the_desired_state_is_put_right(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    release(tables_only, tmp_path, UNIT, 1, tmp_path)
    stale = desired(tables_only).model_copy(update={"state": "switching"})
    newer = release(tables_only, tmp_path, UNIT, 2, tmp_path)
    tables_only.registry.set_active(stale)
    done = settle(tables_only, UNIT)
    assert done == f"recs: the desired state is {newer.version} again"
    assert desired(tables_only).version == live_version(tables_only, UNIT) == newer.version


@pytest.mark.parametrize("moved", [False, True])
def test_a_half_done_move_is_completed(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    release(tables_only, tmp_path, UNIT, 1, tmp_path)
    second = half_done(tables_only, tmp_path, monkeypatch, moved)
    assert desired(tables_only).state == "switching"
    assert settle(tables_only, UNIT) == (
        f"recs: the switch to {second}, left half-way, is complete"
    )
    assert live_version(tables_only, UNIT) == second
    assert desired(tables_only).state == "live"
    assert settle(tables_only, UNIT) is None
    assert [moved.version for moved in tables_only.registry.history(UNIT)][-1] == second


@pytest.mark.parametrize("moved", [False, True])
def test_a_half_done_move_to_a_damaged_version_is_undone(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    first = release(tables_only, tmp_path, UNIT, 1, tmp_path)
    second = half_done(tables_only, tmp_path, monkeypatch, moved)
    meta = tables_only.online.table_meta(UNIT, second)["user_items"]
    for bucket in tables_only.online.keys(UNIT).buckets(meta, second):
        tables_only.online._redis.delete(bucket)
    done = settle(tables_only, UNIT)
    assert done is not None
    assert f"{first.version} is live; the switch to {second}, left half-way, failed" in done
    assert live_version(tables_only, UNIT) == desired(tables_only).version == first.version
    assert desired(tables_only).state == "live"


class _Killed(BaseException):
    pass


def half_done(
    context: ReleaseContext, folder: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> int:
    """Leave a switch as a killed process does, before or after the pointer moved."""
    candidate = build(context, folder, UNIT, 2, folder)
    stage(context, candidate)
    move = context.online.pointers.move

    def killed(*args: Any, **kwargs: Any) -> None:
        if moved:
            move(*args, **kwargs)
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(context.online.pointers, "move", killed)
        with pytest.raises(_Killed):
            activate(context, candidate)
    return candidate.version


def test_the_loser_of_two_runs_is_told_who_is_at_it(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.release.switch.SWITCH_WAIT_SECONDS", 0.2)
    candidate = build(tables_only, tmp_path, UNIT, 1, tmp_path)
    stage(tables_only, candidate)
    other = replace(tables_only, owner="run two")
    with (
        hold(other, UNIT),
        pytest.raises(Exception, match="recs is being changed by run two: try again later"),
        hold(tables_only, UNIT, wait=0.2),
    ):
        pass


def test_a_model_and_its_features_switch_together(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    unit = "embedding_mlp"
    for attempt in (1, 2):
        manifest = release(served, tmp_path, unit, attempt, models)
        answer = served.client.rank("1", ["2"], "tf_serving")
        assert answer.version == manifest.version
        assert answer.items[0].score == pytest.approx(3.5 * (attempt + 1) / 10)


def test_a_replica_that_is_gone_after_the_switch_undoes_it(
    served: ReleaseContext, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = "embedding_mlp"
    first = release(served, tmp_path, unit, 1, models)
    second = build(served, tmp_path, unit, 2, models)
    stage(served, second)

    def unreachable(*_: object) -> list[str]:
        raise ServiceError("model server at 127.0.0.1:1 (REST): connection refused")

    monkeypatch.setattr("pipelines.release.switch.canary_reads", unreachable)
    with pytest.raises(ServiceError, match="connection refused"):
        activate(served, second)
    assert live_version(served, unit) == first.version
    labels = served.client.rank("1", ["2"], "tf_serving")
    assert labels.version == first.version
