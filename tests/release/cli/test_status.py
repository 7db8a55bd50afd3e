"""`ferry status`, and the commands that repair what it shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from local.health import free_ports
from pipelines.config import Settings
from pipelines.release.context import ReleaseContext
from tests.release.cli.command import (
    ENABLED,
    MODEL,
    UNIT,
    Ferry,
    empty_redis,
    fits,
    of_unit,
    two_live,
)
from tests.release.versions import USERS, release


def test_status_before_the_first_release(ferry: Ferry) -> None:
    assert ferry("status").out.splitlines() == [f"{unit}: nothing is live" for unit in ENABLED]
    assert [unit["live"] for unit in ferry("status", "--json").json()] == [None] * len(ENABLED)


def test_status_says_what_is_live_since_when_and_how_large(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = two_live(tables_only, tmp_path)
    text = ferry("status")
    assert fits(text)
    since = tables_only.client.online.pointers.get(UNIT)
    assert since is not None
    assert f"recs {v2}, live since {since.since:%Y-%m-%d %H:%M:%S} UTC" in text.out
    assert f"before   {v1}" in text.out
    assert "data     to 2026-03-01, " in text.out
    assert "by       a test: release of run date 2026-03-01" in text.out
    assert f"kB; rows: user_items {USERS}, popular 1, titles {USERS}" in text.out
    assert "metrics  auc 0.7 (constant 0.5)" in text.out
    assert "problem" not in text.out
    status = of_unit(ferry("status", "--json"))
    assert (status["live"]["version"], status["live"]["previous"]) == (v2, v1)
    assert status["live"]["since"].startswith(f"{since.since:%Y-%m-%dT%H:%M}")
    assert status["data_date"] == "2026-03-01"
    assert status["data_age_days"] > 0
    assert status["redis_bytes"] > 5000
    assert status["rows"] == {"user_items": USERS, "popular": 1, "titles": USERS}
    assert status["metrics"]["auc"]["baselines"] == {"constant": 0.5}
    assert status["problems"] == []


def test_status_and_repair_when_redis_lost_everything(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    _, v2 = two_live(tables_only, tmp_path)
    empty_redis(tables_only)
    problem = f"object storage wants {v2}, Redis has nothing: 'ferry reconcile recs' settles it"
    assert "recs: nothing is live" in ferry("status").out
    assert f"problem {problem}" in ferry("status").text
    assert of_unit(ferry("status", "--json"))["problems"] == [problem]
    assert "'ferry restore recs' brings it back" in ferry("rollback", UNIT, "--reason", "x").error()
    restored = ferry("restore")
    assert restored.code == 0
    assert f"recs: the pointer names {v2} again" in restored.out
    assert "embeddings" not in restored.out
    assert of_unit(ferry("status", "--json"))["problems"] == []
    assert ferry("verify", UNIT).code == 0


def test_status_and_repair_when_the_two_disagree(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    first = release(tables_only, tmp_path, UNIT, 1, tmp_path)
    key = tables_only.online.pointers.key(UNIT)
    old = tables_only.online._redis.dump(key)
    second = release(tables_only, tmp_path, UNIT, 2, tmp_path)
    tables_only.online._redis.restore(key, 0, old, replace=True)  # type: ignore[arg-type]
    problem = f"object storage wants {second.version}, Redis has {first.version}: 'ferry reconcile"
    assert problem in ferry("status").text
    assert "Redis names" in ferry("verify", UNIT).error()
    assert ferry("reconcile", UNIT).out == f"recs: the pointer names {second.version} again\n"
    tables_only.registry.clear_active(UNIT)
    assert "object storage knows of no release" in ferry("status").text
    assert "object storage nothing: 'ferry reconcile recs'" in ferry("verify", UNIT).error()
    assert f"the desired state is {second.version} again" in ferry("reconcile").out
    assert "problem" not in ferry("status").out


def test_status_and_repair_of_a_switch_that_is_half_done(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = two_live(tables_only, tmp_path)
    settled = tables_only.registry.active(UNIT)
    assert settled is not None
    # As a rollback leaves it that was killed before the pointer moved.
    tables_only.registry.set_active(
        settled.model_copy(
            update={
                "state": "switching",
                "version": v1,
                "previous": None,
                "replaced": v2,
                "epoch": settled.epoch + 1,
                "kind": "rollback",
                "why": "half done",
                "backward": True,
                "former": settled,
            }
        )
    )
    status = of_unit(ferry("status", "--json"))
    assert status["live"]["version"] == v2
    assert status["why"] == "release of run date 2026-03-01", "the reason of another move"
    assert status["problems"] == [
        f"a switch to {v1} was left half-way: 'ferry reconcile recs' settles it"
    ]
    with tables_only.online.leases.hold(tables_only.online.pointers.key(UNIT), "ann"):
        assert f"a switch to {v1} is under way, by ann" in ferry("status").text
    assert "object storage" in ferry("verify", UNIT).error()
    done = ferry("reconcile")
    assert f"recs: the switch to {v1}, left half-way, is complete" in done.out
    assert "embeddings: nothing to do" in done.out
    assert of_unit(ferry("status", "--json"))["live"]["version"] == v1


def test_status_names_the_replica_that_is_down(
    served: ReleaseContext,
    ferry_for: Callable[[Settings], Ferry],
    models: Path,
    tmp_path: Path,
) -> None:
    v1, v2 = (release(served, tmp_path, MODEL, n, models).version for n in (1, 2))
    up = served.settings.tf_serving[0]
    ferry = ferry_for(served.settings)
    assert f"replica  {up.grpc} AVAILABLE" in ferry("status").out
    (port,) = free_ports(1)
    down = f"127.0.0.1:{port}"
    replicas = (*served.settings.tf_serving, type(up)("127.0.0.1", port, port))
    ferry = ferry_for(served.settings.model_copy(update={"tf_serving": replicas}))
    text = ferry("status")
    assert text.code == 0
    assert f"replica  {up.grpc} AVAILABLE" in text.out
    assert f"replica model server at {down} (gRPC): UNAVAILABLE" in text.text
    states = of_unit(ferry("status", "--json"), MODEL)["replicas"]
    assert states[up.grpc] == "AVAILABLE"
    assert "UNAVAILABLE" in states[down]
    assert f"model server at {down}" in ferry("verify", MODEL).error()
    # Neither is a rollback kept from by it, nor is it passed over in silence.
    back = ferry("rollback", MODEL, "--reason", "wrong prices")
    assert back.code == 0
    assert f"{MODEL} {v1} is live instead of {v2}\n" in back.out
    assert f"not yet model server at {down}" in back.text
    forward = ferry("rollback", MODEL, "--reason", "right", "--to", v2, "--json").json()
    assert (forward["version"], forward["replaced"]) == (v2, v1)
    assert down in forward["problems"][0]
