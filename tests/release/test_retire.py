"""A unit that is taken offline: what readers get, what leaves it so, and what brings it back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from pipelines.config import RetentionConfig
from pipelines.errors import FerryError, ReleaseError
from pipelines.models_config import Unit
from pipelines.online.tf_serving import ModelServer
from pipelines.operations import online_check, restore_units
from pipelines.release import rollback as rollback_module
from pipelines.release.activate import activate
from pipelines.release.audit import audit
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.origin import CurrentLake
from pipelines.release.outcome import unit_result
from pipelines.release.restore import reconcile, restore
from pipelines.release.retention import retain
from pipelines.release.retire import RetireError, retire
from pipelines.release.rollback import RollbackError, roll_back
from pipelines.release.serving_config import configured_labels, read_config
from pipelines.release.status import unit_status, version_lines
from tests.release.test_restore import empty_redis
from tests.release.versions import RUNNER, build, live_version, plan, release, stage

UNIT: Unit = "recs"
RANKER = "embedding_mlp"
TODAY = datetime.now(UTC).date()
WHY = "wrong prices"


def versions(context: ReleaseContext, folder: Path, count: int) -> list[int]:
    return [
        release(context, folder, UNIT, n, folder, day=TODAY).version for n in range(1, count + 1)
    ]


def retired_text(context: ReleaseContext) -> str | None:
    status = unit_status(context, UNIT, CurrentLake("a lake"), TODAY)
    assert status.problems == []
    return status.retired.text if status.retired else None


def kinds(context: ReleaseContext) -> list[tuple[str, int | None]]:
    return [(move.kind, move.version) for move in context.registry.history(UNIT)]


def test_a_retired_unit_stays_offline_and_comes_back_by_a_rollback(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = versions(tables_only, tmp_path, 2)
    done = retire(tables_only, UNIT, WHY)
    assert (done.unit, done.version, done.who, done.why) == (UNIT, v2, "a test", WHY)
    offline = f"nothing of {UNIT} is live in Redis at"
    with pytest.raises(ReleaseError, match=offline):
        tables_only.client.recommend("7")
    with pytest.raises(ReleaseError, match=offline):
        tables_only.client.similar("7", source="recs")
    assert retired_text(tables_only) == done.text
    assert done.text.startswith("retired by a test at 2")
    assert done.text.endswith(f" UTC: {WHY}")
    with pytest.raises(ReleaseError, match=f"nothing of recs is live: it was {done.text}"):
        audit(tables_only, UNIT)

    # Nothing that repairs or tries again makes it live.
    assert reconcile(tables_only, UNIT, RUNNER) == []
    assert restore(tables_only, UNIT, RUNNER) == [
        f"recs stays offline: it was {done.text}; 'ferry rollback recs --reason …' makes {v2} "
        "live again"
    ]
    assert online_check(tables_only.settings, "a test") == []
    assert restore_units(tables_only.settings, None, "a test") == {}
    ended = activate(tables_only, tables_only.registry.sealed(UNIT, v2), "always")
    assert (ended.outcome, live_version(tables_only, UNIT)) == ("refused", None)
    assert f"version {v2} was withdrawn: {WHY}" in ended.reason
    states = {line.version: (line.state, line.reason) for line in version_lines(tables_only, UNIT)}
    assert states == {v2: ("retired", done.text), v1: ("sealed", None)}

    back = roll_back(tables_only, UNIT, None, "prices are right", RUNNER)
    assert (back.version, back.replaced, back.staged_again) == (v2, None, False)
    pointer, state = tables_only.online.pointers.get(UNIT), tables_only.registry.active(UNIT)
    assert pointer is not None
    assert state is not None
    assert (pointer.version, pointer.previous, state.withdrawn) == (v2, v1, {})
    assert tables_only.client.recommend("7").items[0].item_id == "2"
    assert retired_text(tables_only) is None
    assert kinds(tables_only)[-2:] == [("retirement", None), ("rollback", v2)]
    audit(tables_only, UNIT)


def test_a_newer_version_replaces_a_retired_one(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = versions(tables_only, tmp_path, 2)
    retire(tables_only, UNIT, WHY)
    v3 = release(tables_only, tmp_path, UNIT, 3, tmp_path, day=TODAY).version
    pointer = tables_only.online.pointers.get(UNIT)
    assert pointer is not None
    # Not to what was retired.
    assert (pointer.version, pointer.previous) == (v3, v1)
    states = {line.version: line.state for line in version_lines(tables_only, UNIT)}
    assert states == {v3: "live", v2: "retired", v1: "previous"}
    assert roll_back(tables_only, UNIT, None, "worse", RUNNER).version == v1


def test_a_retired_unit_goes_back_to_the_version_that_is_named(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = versions(tables_only, tmp_path, 2)
    retire(tables_only, UNIT, WHY)
    assert roll_back(tables_only, UNIT, v1, "the one before", RUNNER).version == v1
    state = tables_only.registry.active(UNIT)
    assert state is not None
    assert state.withdrawn == {v2: WHY}


def test_a_ranker_is_retired_while_its_model_servers_are_down(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    first, second = (release(served, tmp_path, RANKER, n, models) for n in (1, 2))
    nowhere = served.settings.model_copy(update={"tf_serving": ()})
    retire(ReleaseContext(**{**vars(served), "settings": nowhere}), RANKER, WHY)
    with pytest.raises(ReleaseError, match=f"nothing of {RANKER} is live in Redis"):
        served.client.rank("1", ["2"], "tf_serving")
    with ModelServer(served.settings.tf_serving[0]) as server:
        assert server.versions(RANKER)[second.version][0] == "AVAILABLE"
    retain(served, RANKER, RetentionConfig(online=1, stored=1), dry_run=False)
    third = release(served, tmp_path, RANKER, 3, models)
    labels = configured_labels(read_config(served.settings.model_dir), RANKER)
    assert labels == {"stable": third.version, "canary": third.version}
    done = roll_back(served, RANKER, None, "worse", RUNNER)
    assert (done.version, done.staged_again) == (first.version, False)


class _Killed(BaseException):
    pass


EFFECTS = ("desired state", "pointer", "history", "settled state")
Then = Literal["retire", "reconcile", "rollback", "the next run"]


class Kill:
    """Ends what it is put into before or after one of its calls, counted over all of them."""

    def __init__(self, number: int, *, after: bool) -> None:
        self._left, self._after = number, after

    def within(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            is_it = self._left == -1
            if is_it and not self._after:
                raise _Killed
            result = act(*args, **kwargs)
            if is_it:
                raise _Killed
            return result

        return call


@pytest.mark.parametrize("then", get_args(Then))
def test_a_retirement_that_is_killed_is_completed(
    tables_only: ReleaseContext, tmp_path: Path, then: Then
) -> None:
    v1, v2 = versions(tables_only, tmp_path, 2)
    for number, after in itertools.product(range(len(EFFECTS)), (False, True)):
        before = len(kinds(tables_only))
        with pytest.MonkeyPatch.context() as patch:
            kill = Kill(number, after=after)
            objects, pointers = tables_only.registry.objects, tables_only.online.pointers
            patch.setattr(objects, "put_text", kill.within(objects.put_text))
            patch.setattr(pointers, "move", kill.within(pointers.move))
            with pytest.raises(_Killed):
                retire(tables_only, UNIT, WHY)
        is_begun, is_moved = (number, after) > (0, False), (number, after) > (1, False)
        assert live_version(tables_only, UNIT) == (None if is_moved else v2)
        expected: int | None = None
        match then:
            case "retire" if (number, after) == (len(EFFECTS) - 1, True):
                with pytest.raises(RetireError, match="nothing of recs is live: it was retired"):
                    retire(tables_only, UNIT, WHY)
            case "retire":
                assert retire(tables_only, UNIT, WHY).version == v2
            case "reconcile":
                reconcile(tables_only, UNIT, RUNNER)
                expected = None if is_begun else v2
            case "rollback":
                done = roll_back(tables_only, UNIT, None, "on purpose", RUNNER)
                expected = v2 if is_begun else v1
                assert (done.version, done.replaced) == (expected, None if is_begun else v2)
            case _:
                attempt = 3 + 2 * number + after
                expected = release(
                    tables_only, tmp_path, UNIT, attempt, tmp_path, day=TODAY
                ).version
        assert live_version(tables_only, UNIT) == expected
        # What was decided is told by the history, whatever came next.
        is_told = ("retirement", None) in kinds(tables_only)[before:]
        assert is_told == (is_begun or then == "retire")
        assert reconcile(tables_only, UNIT, RUNNER) == []
        if expected != v2:
            roll_back(tables_only, UNIT, v2, "for the next one", RUNNER)


def test_a_redis_that_lost_its_data_or_has_older_ones_leaves_it_offline(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    _, v2 = versions(tables_only, tmp_path, 2)
    key = tables_only.online.pointers.key(UNIT)
    old = tables_only.online._redis.dump(key)
    done = retire(tables_only, UNIT, WHY)
    empty_redis(tables_only)
    assert online_check(tables_only.settings, "a test") == []
    assert retired_text(tables_only) == done.text
    tables_only.online._redis.restore(key, 0, old, replace=True)  # type: ignore[arg-type]
    assert live_version(tables_only, UNIT) == v2
    (checked,) = online_check(tables_only.settings, "a test")
    assert checked.repaired == ["recs: the pointer names nothing again"]
    assert (checked.live, checked.problems) == (None, [])
    assert live_version(tables_only, UNIT) is None
    empty_redis(tables_only)
    assert roll_back(tables_only, UNIT, None, "back", RUNNER).staged_again
    audit(tables_only, UNIT)


def test_what_redis_lost_can_be_retired(tables_only: ReleaseContext, tmp_path: Path) -> None:
    (v1,) = versions(tables_only, tmp_path, 1)
    empty_redis(tables_only)
    assert retire(tables_only, UNIT, WHY).version == v1
    assert reconcile(tables_only, UNIT, RUNNER) == []
    assert live_version(tables_only, UNIT) is None


def test_without_its_desired_state_it_stays_offline(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    versions(tables_only, tmp_path, 1)
    done = retire(tables_only, UNIT, WHY)
    tables_only.registry.clear_active(UNIT)
    assert reconcile(tables_only, UNIT, RUNNER) == ["recs: the desired state is nothing again"]
    assert retired_text(tables_only) == done.text


def test_a_release_that_fails_leaves_the_unit_retired(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, v2 = versions(tables_only, tmp_path, 2)
    done = retire(tables_only, UNIT, WHY)
    third = build(tables_only, tmp_path, UNIT, 3, tmp_path, day=TODAY)
    stage(tables_only, third)

    def wrong(*_: Any) -> list[str]:
        raise ReleaseError("the answers are wrong")

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.release.switch.canary_reads", wrong)
        with pytest.raises(ReleaseError, match="the answers are wrong"):
            activate(tables_only, third)
    assert kinds(tables_only)[-1] == ("went_back", None)
    assert retired_text(tables_only) == done.text
    assert online_check(tables_only.settings, "a test") == []
    assert roll_back(tables_only, UNIT, None, "back", RUNNER).version == v2


def test_retention_keeps_what_a_return_needs(tables_only: ReleaseContext, tmp_path: Path) -> None:
    released = versions(tables_only, tmp_path, 5)
    # Newer than what was live: a candidate, as always.
    newer = build(tables_only, tmp_path, UNIT, 6, tmp_path, day=TODAY).version
    retire(tables_only, UNIT, WHY)
    least = RetentionConfig(online=1, stored=1)
    removed = retain(tables_only, UNIT, least, dry_run=False)
    assert (removed.live, removed.kept) == (None, [newer, released[4], released[3]])
    assert removed.redis == released[:3]
    assert retain(tables_only, UNIT, least, dry_run=False).is_empty
    for expected in (released[4], released[3]):
        done = roll_back(tables_only, UNIT, None, "back", RUNNER)
        assert (done.version, done.staged_again) == (expected, False)


def trained_on(context: ReleaseContext, manifest: Manifest, lake: str | None) -> Manifest:
    changed = manifest.model_copy(update={"data": {"training": {"lake_id": lake}}})
    context.registry.seal(changed)
    return changed


@pytest.mark.parametrize(
    ("retired_lake", "lake", "is_live"),
    [("demo", "demo", False), ("demo", "own", True), (None, "own", False), ("demo", None, False)],
)
def test_an_older_version_goes_live_only_if_it_is_of_another_lake(
    tables_only: ReleaseContext,
    tmp_path: Path,
    retired_lake: str | None,
    lake: str | None,
    is_live: bool,
) -> None:
    older = trained_on(tables_only, build(tables_only, tmp_path, UNIT, 1, tmp_path), lake)
    stage(tables_only, older)
    trained_on(tables_only, release(tables_only, tmp_path, UNIT, 2, tmp_path), retired_lake)
    retire(tables_only, UNIT, "trained on the demo")
    ended = activate(tables_only, older)
    if is_live:
        assert ended.outcome == "live"
    else:
        assert "which was live until it was retired" in ended.reason
        assert activate(tables_only, older, "always").outcome == "live"


def test_a_run_whose_version_was_retired_says_so(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    release(tables_only, tmp_path, UNIT, 1, tmp_path)
    retire(tables_only, UNIT, WHY)
    result = unit_result(tables_only, plan(UNIT, 1), UNIT)
    assert (result.outcome, result.version) == ("refused", None)
    assert f"was withdrawn: {WHY}" in result.reason
    assert unit_result(tables_only, plan(UNIT, 2), UNIT).outcome == "failed"


def test_what_can_t_be_retired_is_said(tables_only: ReleaseContext, tmp_path: Path) -> None:
    with pytest.raises(RetireError, match="nothing of recs is live: there is nothing to retire"):
        retire(tables_only, UNIT, WHY)
    versions(tables_only, tmp_path, 1)
    for no_reason in ("", " \t"):
        with pytest.raises(RetireError, match="a retirement of recs needs a reason"):
            retire(tables_only, UNIT, no_reason)
    retire(tables_only, UNIT, WHY)
    with pytest.raises(RetireError, match=f"nothing of recs is live: it was retired by .*: {WHY}"):
        retire(tables_only, UNIT, "again")
    assert len(kinds(tables_only)) == 2


def test_a_retirement_during_a_rollback_wins(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, v2 = versions(tables_only, tmp_path, 2)

    def retired_meanwhile(*_: Any) -> list[str]:
        retire(tables_only, UNIT, WHY)
        return []

    monkeypatch.setattr(rollback_module, "verify_for_rollback", retired_meanwhile)
    with pytest.raises(RollbackError, match=f"recs was moved from {v2} to nothing by a test"):
        roll_back(tables_only, UNIT, None, "worse", RUNNER)
    assert live_version(tables_only, UNIT) is None


def test_a_switch_that_was_not_recorded_is_in_the_history_of_a_retired_unit(
    tables_only: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (v1,) = versions(tables_only, tmp_path, 1)
    second = build(tables_only, tmp_path, UNIT, 2, tmp_path, day=TODAY)
    stage(tables_only, second)

    def killed(*_: Any) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(tables_only.registry, "commit", killed)
        with pytest.raises(_Killed):
            activate(tables_only, second)
    assert retire(tables_only, UNIT, WHY).version == second.version
    assert kinds(tables_only) == [
        ("release", v1),
        ("release", second.version),
        ("retirement", None),
    ]


def test_a_lease_that_is_held_is_told(tables_only: ReleaseContext, tmp_path: Path) -> None:
    versions(tables_only, tmp_path, 1)
    with (
        pytest.MonkeyPatch.context() as patch,
        tables_only.online.leases.hold(tables_only.online.pointers.key(UNIT), "ann", label=UNIT),
    ):
        patch.setattr("pipelines.release.retire.hold", _hold_at_once)
        with pytest.raises(FerryError, match="recs is being changed by ann"):
            retire(tables_only, UNIT, WHY)


def _hold_at_once(context: ReleaseContext, unit: str) -> Any:
    from pipelines.release.switch import hold

    return hold(context, unit, wait=0.0)
