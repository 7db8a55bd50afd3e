from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local.health import free_ports
from pipelines.config import Replica
from pipelines.errors import ReleaseError, VerificationError
from pipelines.evaluation.gates import GateResult
from pipelines.patience import patient
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.rollback import RollbackError, roll_back
from pipelines.release.serving_config import configured_labels, read_config
from tests.release.versions import RUNNER, build, live_version, release

UNIT = "recs"


def versions(context: ReleaseContext, folder: Path, count: int) -> list[int]:
    return [release(context, folder, UNIT, n, folder).version for n in range(1, count + 1)]


def test_back_and_back_again_and_on_purpose_forward(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2, v3 = versions(tables_only, tmp_path, 3)
    done = roll_back(tables_only, UNIT, None, "wrong prices", RUNNER)
    assert (done.version, done.replaced, done.staged_again, done.problems) == (v2, v3, False, [])
    # Not back to the bad one: what a second rollback goes to is older.
    assert roll_back(tables_only, UNIT, None, "also wrong", RUNNER).version == v1
    with pytest.raises(RollbackError, match=f"recs {v1} has no predecessor"):
        roll_back(tables_only, UNIT, None, "again", RUNNER)
    assert roll_back(tables_only, UNIT, v3, "it was right after all", RUNNER).version == v3
    state = tables_only.registry.active(UNIT)
    assert state is not None
    assert state.withdrawn == {v2: "also wrong"}
    assert [s.why for s in tables_only.registry.history(UNIT)][-3:] == [
        "wrong prices",
        "also wrong",
        "it was right after all",
    ]


def test_what_is_not_staged_any_more_is_staged_again(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = versions(tables_only, tmp_path, 2)
    tables_only.online.unlink_tables(UNIT, v1)
    done = roll_back(tables_only, UNIT, None, "wrong prices", RUNNER)
    assert (done.version, done.replaced, done.staged_again) == (v1, v2, True)
    assert tables_only.client.recommend("7").items[0].item_id == "1"


def test_a_corrupt_version_is_not_rolled_back_to(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = versions(tables_only, tmp_path, 2)
    tables_only.online.unlink_tables(UNIT, v1)
    manifest = tables_only.registry.sealed(UNIT, v1)
    part = manifest.table_parts("user_items")[0]
    tables_only.registry.objects.put_text(tables_only.registry.key(UNIT, v1, part.name), "spoiled")
    with pytest.raises(ReleaseError, match=r"user_items.* the version is corrupt"):
        roll_back(tables_only, UNIT, None, "wrong prices", RUNNER)
    assert live_version(tables_only, UNIT) == v2


def test_a_version_that_answers_wrongly_is_not_rolled_back_to(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = versions(tables_only, tmp_path, 2)
    meta = tables_only.online.table_meta(UNIT, v1)["popular"]
    (key,) = tables_only.online.keys(UNIT).buckets(meta, v1)
    tables_only.online._redis.hset(key, "all", b"\x01" + b"\x00" * 7)
    with pytest.raises(VerificationError, match="table popular, id all"):
        roll_back(tables_only, UNIT, None, "wrong prices", RUNNER)
    assert live_version(tables_only, UNIT) == v2


def test_what_can_t_be_rolled_back_to_is_said(tables_only: ReleaseContext, tmp_path: Path) -> None:
    with pytest.raises(RollbackError, match="nothing of recs is live"):
        roll_back(tables_only, UNIT, None, "wrong", RUNNER)
    v1, v2 = versions(tables_only, tmp_path, 2)
    gate = GateResult(group="model", name="auc", verdict="refused", reason="auc 0.4 is below 0.5")
    refused = build(tables_only, tmp_path, UNIT, 3, tmp_path)
    tables_only.registry.seal(refused.model_copy(update={"gates": [gate]}))
    for to, reason in (
        (209912310001, f"{UNIT} has no sealed version 209912310001"),
        (refused.version, "was refused by its gates: auc 0.4 is below 0.5"),
        (v2, f"{v2} is live already"),
        # No version, and not the same as none given.
        (0, f"{UNIT} has no sealed version 0 "),
    ):
        with pytest.raises(ReleaseError, match=reason) as caught:
            roll_back(tables_only, UNIT, to, "wrong", RUNNER)
        assert not caught.value.retryable
    for no_reason in ("", "  \t"):
        with pytest.raises(RollbackError, match="a rollback of recs needs a reason"):
            roll_back(tables_only, UNIT, v1, no_reason, RUNNER)
    assert live_version(tables_only, UNIT) == v2
    assert v1 < v2


def test_of_two_rollbacks_at_once_one_is_told(tables_only: ReleaseContext, tmp_path: Path) -> None:
    v1, v2, v3 = versions(tables_only, tmp_path, 3)
    start = threading.Barrier(2)
    outcomes: list[object] = []

    def rollback(owner: str) -> None:
        settings, config = tables_only.settings, tables_only.config
        with release_context(settings, config, owner) as context:
            start.wait()
            try:
                outcomes.append(roll_back(context, UNIT, None, f"by {owner}", RUNNER).version)
            except ReleaseError as error:
                outcomes.append(str(error))

    both = [threading.Thread(target=rollback, args=(name,)) for name in ("ann", "bob")]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert v2 in outcomes
    (message,) = [outcome for outcome in outcomes if outcome != v2]
    assert f"recs was moved from {v3} to {v2} by" in str(message)
    assert live_version(tables_only, UNIT) == v2
    assert v1 < v2


def test_a_model_rolls_back_with_its_labels_within_two_seconds(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    unit = "embedding_mlp"
    first, second = (release(served, tmp_path, unit, n, models) for n in (1, 2))
    started = time.monotonic()
    done = roll_back(served, unit, None, "wrong prices", RUNNER)
    assert time.monotonic() - started < patient(2.0)
    assert (done.version, done.replaced) == (first.version, second.version)
    labels = configured_labels(read_config(served.settings.model_dir), unit)
    assert labels == {"stable": first.version, "canary": first.version}
    answer = served.client.rank("1", ["2"], "tf_serving")
    assert answer.version == first.version
    assert answer.items[0].score == pytest.approx(0.7)


def test_a_replica_that_is_down_does_not_keep_a_bad_version_live(
    served: ReleaseContext, models: Path, tmp_path: Path
) -> None:
    unit = "embedding_mlp"
    first, _ = (release(served, tmp_path, unit, n, models) for n in (1, 2))
    (port,) = free_ports(1)
    replicas = (*served.settings.tf_serving, Replica("127.0.0.1", port, port))
    half = replace(served, settings=served.settings.model_copy(update={"tf_serving": replicas}))
    done = roll_back(half, unit, None, "wrong prices", RUNNER)
    assert done.version == live_version(half, unit) == first.version
    assert any(f"127.0.0.1:{port}" in problem for problem in done.problems)


def test_a_first_replica_that_hangs_does_not_hold_up_a_rollback(
    served: ReleaseContext, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = "embedding_mlp"
    first, _ = (release(served, tmp_path, unit, n, models) for n in (1, 2))
    moved_after: list[float] = []
    move = served.online.pointers.move

    def noted(*args: Any, **kwargs: Any) -> None:
        move(*args, **kwargs)
        moved_after.append(time.monotonic() - started)

    monkeypatch.setattr(served.online.pointers, "move", noted)
    # It takes connections, and never answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        replicas = (Replica("127.0.0.1", port, port), *served.settings.tf_serving)
        half = replace(served, settings=served.settings.model_copy(update={"tf_serving": replicas}))
        started = time.monotonic()
        done = roll_back(half, unit, None, "wrong prices", RUNNER)
    assert done.version == live_version(half, unit) == first.version
    assert moved_after[0] < patient(2.0)
    assert any(f"127.0.0.1:{port}" in problem for problem in done.problems)
