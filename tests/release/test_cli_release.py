"""The release commands of `ferry` on real services: what a person sees, and what a script reads."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local.health import free_ports
from pipelines.cli import main
from pipelines.cli_output import console
from pipelines.config import Settings
from pipelines.evaluation.gates import GateResult, Verdict
from pipelines.models_config import UNITS
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from tests.release.versions import USERS, build, live_version, release

UNIT = "recs"
MODEL = "embedding_mlp"
#: Those that `pipeline.yaml` enables: others are shown only while they are live.
ENABLED = ("recs", "embeddings", "interest_ranker", "ctr_pmml", "embedding_mlp")
TYPO = "rec"
REASON = "ndcg_at_10 is 0.0312, must be more than 0.0834, the baseline popularity " * 4
GATES = [
    GateResult(
        group="model",
        name=f"{verdict}_gate",
        verdict=verdict,
        value=None if verdict == "not_compared" else 0.0312,
        threshold=0.0834,
        baseline=0.08,
        reason=REASON.strip(),
    )
    for verdict in ("passed", "refused", "not_compared")
]


@dataclass(frozen=True)
class Output:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """What it printed, on one line: where lines are broken does not matter."""
        return " ".join(self.out.split())

    def json(self) -> Any:
        return json.loads(self.out)

    def error(self) -> str:
        """Return the one line that a failed command leaves."""
        assert self.code == 1
        assert self.err.startswith("ferry: ")
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        return self.err.strip()


Ferry = Callable[..., Output]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command configures logging as a process of its own may."""
    loggers = [logging.getLogger(name) for name in (None, "ferry", "pipelines")]
    handlers, levels = list(loggers[0].handlers), [logger.level for logger in loggers]
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def ferry_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[[Settings], Ferry]:
    """Return a function that makes a `ferry` whose environment names these settings."""
    monkeypatch.setattr(console, "width", 80)

    def use(settings: Settings) -> Ferry:
        for name, value in {
            "FERRY_HOME": tmp_path / "no embedded services",
            "FERRY_LAKE": settings.lake_root,
            "FERRY_CONFIG": settings.config,
            "FERRY_REDIS_URL": settings.redis_url.get_secret_value(),
            "FERRY_REDIS_PREFIX": settings.redis_prefix,
            "FERRY_S3_ENDPOINT_URL": settings.s3_endpoint_url,
            "FERRY_BUCKET": settings.bucket,
            "FERRY_TF_SERVING": ",".join(":".join(map(str, r)) for r in settings.tf_serving),
            "FERRY_MODEL_DIR": settings.model_dir,
        }.items():
            monkeypatch.setenv(name, str(value))

        def run(*arguments: object) -> Output:
            capsys.readouterr()
            code = 0
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as ended:
                code = int(ended.code or 0)
            return Output(code, *capsys.readouterr())

        return run

    return use


@pytest.fixture
def ferry(tables_only: ReleaseContext, ferry_for: Callable[[Settings], Ferry]) -> Ferry:
    """`ferry` on the services of `tables_only`."""
    return ferry_for(tables_only.settings)


def two_live(context: ReleaseContext, folder: Path) -> tuple[int, int]:
    first, second = (release(context, folder, UNIT, n, folder).version for n in (1, 2))
    return first, second


def refused(context: ReleaseContext, folder: Path, attempt: int) -> Manifest:
    return build(context, folder, UNIT, attempt, folder, gates=GATES)


def empty_redis(context: ReleaseContext) -> None:
    for key in context.online._redis.scan_iter(f"{context.online.prefix}:*"):
        context.online._redis.delete(key)


def spoil(context: ReleaseContext, version: int) -> None:
    part = context.registry.sealed(UNIT, version).table_parts("user_items")[0]
    context.registry.objects.put_text(context.registry.key(UNIT, version, part.name), "spoiled")


def fits(output: Output) -> bool:
    """Tell whether nothing is wider than a terminal, or shows how Python writes a value."""
    lines = output.out.splitlines()
    return all(len(line) <= 80 and "None" not in line and "{" not in line for line in lines)


def of_unit(output: Output, unit: str = UNIT) -> Any:
    return next(status for status in output.json() if status["unit"] == unit)


# --- mistakes ---


@pytest.mark.parametrize(
    "command",
    [
        ("release", "list"),
        ("release", "show"),
        ("verify",),
        ("rollback", "--reason", "wrong prices"),
        ("restore",),
        ("reconcile",),
        ("retention",),
        ("retention", "--dry-run"),
    ],
)
def test_a_typo_in_a_unit_is_one_line_with_the_right_name(
    ferry: Ferry, command: tuple[str, ...]
) -> None:
    for flags in ((), ("--json",)):
        result = ferry(*command, TYPO, *flags)
        assert "no unit 'rec': did you mean recs? units are recs, embeddings" in result.error()
        assert not result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rollback", UNIT), "Missing option '--reason'"),
        (("rollback", UNIT, "--reason", ""), "a rollback of recs needs a reason"),
        (("rollback", UNIT, "--reason", "  \t "), "a rollback of recs needs a reason"),
        (("rollback", UNIT, "--reason", "bad"), "nothing of recs is live in Redis at"),
        (("rollback", UNIT, "--reason", "bad", "--to", "newest"), "Invalid value for '--to'"),
        (("release", "show", UNIT), "nothing of recs is live: name a version"),
        (("release", "show", UNIT, "202601010001"), "recs has no sealed version 202601010001"),
        (("verify", UNIT), "nothing of recs is live: there is nothing to verify"),
        (("verify",), "Missing argument 'UNIT'"),
        (("restore", UNIT), "nothing of it was ever live"),
        (("rollbak",), "No such command 'rollbak'"),
        (("status", "--jsn"), "No such option: --jsn"),
    ],
)
def test_a_mistake_is_one_line(ferry: Ferry, arguments: tuple[str, ...], message: str) -> None:
    result = ferry(*arguments)
    assert message in result.error()
    assert not result.out


def test_help_is_help(ferry: Ferry) -> None:
    for arguments in (("--help",), ("rollback", "--help")):
        assert ferry(*arguments).code == 0
    for command in ("rollback", "restore", "reconcile", "retention", "verify", "release"):
        assert command in ferry("--help").out
    without = ferry()
    assert without.code == 1
    assert "rollback" in without.out
    assert not without.err


def test_versions_that_can_t_go_live_are_one_line(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = two_live(tables_only, tmp_path)
    v3 = refused(tables_only, tmp_path, 3).version
    for to, message in (
        (202512310001, "recs has no sealed version 202512310001"),
        (0, "recs has no sealed version 0"),
        (v2, f"recs {v2} is live already"),
        (v3, f"recs {v3} was refused by its gates: ndcg_at_10 is 0.0312"),
    ):
        assert message in ferry("rollback", UNIT, "--to", to, "--reason", "wrong").error()
    spoil(tables_only, v1)
    tables_only.online.unlink_tables(UNIT, v1)
    assert "the version is corrupt" in ferry("rollback", UNIT, "--reason", "wrong").error()
    assert live_version(tables_only, UNIT) == v2
    spoil(tables_only, v2)
    failed = ferry("verify", UNIT, "--json")
    assert "the version is corrupt" in failed.error()
    assert failed.json()["units"] == {}
    assert "the version is corrupt" in failed.json()["failures"][UNIT]


def test_an_unreachable_redis_is_one_line(
    tables_only: ReleaseContext, ferry_for: Callable[[Settings], Ferry]
) -> None:
    (port,) = free_ports(1)
    from pydantic import SecretStr

    gone = {"redis_url": SecretStr(f"redis://127.0.0.1:{port}/0")}
    ferry = ferry_for(tables_only.settings.model_copy(update=gone))
    for command in (("status",), ("verify", UNIT), ("release", "list", UNIT)):
        assert f"Redis at 127.0.0.1:{port}" in ferry(*command).error()


# --- status ---


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


# --- versions ---


def test_the_list_of_versions_is_readable_with_long_reasons(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    assert ferry("release", "list", UNIT).out == "recs has no versions yet\n"
    assert ferry("release", "list", UNIT, "--json").json() == []
    v1, v2 = two_live(tables_only, tmp_path)
    v3 = refused(tables_only, tmp_path, 3).version
    tables_only.registry.objects.put_text(f"models/{UNIT}/{v3 + 1}/golden.json", "{}")
    assert ferry("rollback", UNIT, "--reason", "wrong prices").code == 0
    text = ferry("release", "list", UNIT)
    assert fits(text)
    head, *lines = text.out.splitlines()
    assert head.split() == ["version", "state", "run", "built", "(UTC)", "first", "metric"]
    rows = [line for line in lines if not line.startswith(" ")]
    assert [row.split()[:2] for row in rows] == [
        [str(v3 + 1), "unsealed"],
        [str(v3), "refused"],
        [str(v2), "rolled"],
        [str(v1), "live"],
    ]
    assert len({row.index("auc 0.7") for row in rows if "auc" in row}) == 1, "not aligned"
    assert text.text.count("the baseline popularity") == 4
    assert "    wrong prices" in lines
    versions = {line["version"]: line for line in ferry("release", "list", UNIT, "--json").json()}
    assert {v: line["state"] for v, line in versions.items()} == {
        v3 + 1: "unsealed",
        v3: "refused",
        v2: "rolled back",
        v1: "live",
    }
    assert versions[v3]["reason"] == REASON.strip()
    assert versions[v1]["run_date"] == "2026-03-01"
    assert versions[v1]["metrics"]["auc"]["value"] == 0.7


def test_a_version_is_shown_with_its_gates_by_verdict_and_its_moves(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = two_live(tables_only, tmp_path)
    manifest = refused(tables_only, tmp_path, 3)
    text = ferry("release", "show", UNIT, manifest.version)
    assert fits(text)
    assert text.out.startswith(f"recs {manifest.version}: refused\n")
    lines = text.out.splitlines()
    places = [
        next(n for n, line in enumerate(lines) if line == title)
        for title in ("1 gate refused", "1 gate not compared", "1 gate passed")
    ]
    assert places == sorted(places)
    for place, verdict, value in zip(
        places, ("refused", "not_compared", "passed"), ("0.0312", "-", "0.0312"), strict=True
    ):
        assert lines[place + 1].split() == ["gate", "value", "threshold", "baseline"]
        assert lines[place + 2].split() == ["model:", f"{verdict}_gate", value, "0.0834", "0.08"]
    shown = ferry("release", "show", UNIT, manifest.version, "--json").json()
    assert shown["state"] == "refused"
    verdicts: list[Verdict] = [gate["verdict"] for gate in shown["gates"]]
    assert verdicts == ["passed", "refused", "not_compared"]
    assert shown["moves"] == []
    assert ferry("rollback", UNIT, "--reason", "wrong prices").code == 0
    text = ferry("release", "show", UNIT, v2)
    assert fits(text)
    assert text.out.startswith(f"recs {v2}: rolled back\n  wrong prices\n")
    assert f"UTC release to {v2} by a test: release of run date 2026-03-01" in text.text
    assert f"UTC rollback to {v1} by " in text.text
    # Without a version it is the live one.
    assert ferry("release", "show", UNIT).out.startswith(f"recs {v1}: live\n")
    moves = ferry("release", "show", UNIT, "--json").json()["moves"]
    assert [(m["kind"], m["version"]) for m in moves] == [
        ("release", v1),
        ("release", v2),
        ("rollback", v1),
    ]
    assert moves[-1]["why"] == "wrong prices"


# --- changes ---


def test_rollback_says_what_is_live_instead_of_what(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = two_live(tables_only, tmp_path)
    assert ferry("rollback", UNIT, "--reason", "wrong prices").out == (
        f"recs {v1} is live instead of {v2}\n"
    )
    status = of_unit(ferry("status", "--json"))
    assert (status["live"]["version"], status["why"]) == (v1, "wrong prices")
    assert "(ferry, process " in status["who"]
    assert f"recs {v1} has no predecessor" in ferry("rollback", UNIT, "--reason", "again").error()
    tables_only.online.unlink_tables(UNIT, v2)
    done = ferry("rollback", UNIT, "--to", v2, "--reason", "they were right", "--json").json()
    assert done["staged_again"] is True
    assert (done["version"], done["replaced"], done["problems"]) == (v2, v1, [])


def test_verify_names_what_it_checked(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    _, v2 = two_live(tables_only, tmp_path)
    text = ferry("verify", UNIT)
    assert text.code == 0
    assert all(line.startswith(f"recs {v2}: ") for line in text.out.splitlines())
    result = ferry("verify", UNIT, "--json").json()
    assert result["failures"] == {}
    assert result["units"] == {UNIT: text.out.splitlines()}


def test_restore_and_reconcile_where_there_is_nothing_to_do(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    nothing = ferry("restore")
    assert nothing.code == 0
    assert nothing.out == "nothing of any unit was ever live: there is nothing to restore\n"
    assert ferry("restore", "--json").json() == {"units": {}, "failures": {}}
    everywhere = [f"{unit}: nothing to do" for unit in UNITS]
    assert ferry("reconcile").out.splitlines() == everywhere
    assert ferry("reconcile", "--json").json()["units"] == {unit: [] for unit in UNITS}
    _, v2 = two_live(tables_only, tmp_path)
    assert ferry("reconcile", UNIT).out == "recs: nothing to do\n"
    restored = ferry("restore", "--json").json()
    assert list(restored["units"]) == [UNIT]
    assert all(line.startswith(f"recs {v2}: ") for line in restored["units"][UNIT])


def test_a_unit_that_fails_does_not_keep_the_others_from_it(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    _, v2 = two_live(tables_only, tmp_path)
    other = release(tables_only, tmp_path, "embeddings", 1, tmp_path).version
    spoil(tables_only, v2)
    empty_redis(tables_only)
    failed = ferry("restore", "--json")
    assert "the version is corrupt" in failed.error()
    assert list(failed.json()["failures"]) == [UNIT]
    assert list(failed.json()["units"]) == ["embeddings"]
    assert live_version(tables_only, "embeddings") == other
    assert live_version(tables_only, UNIT) is None
    again = ferry("reconcile")
    assert "the version is corrupt" in again.error()
    assert "embeddings: nothing to do" in again.out


def test_retention_says_what_goes_and_what_went(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    config = tmp_path / "pipeline.yaml"
    text = tables_only.settings.config.read_text()
    config.write_text(text.replace("online: 3 ", "online: 1 ").replace("stored: 14 ", "stored: 2 "))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERRY_CONFIG", str(config))
        versions = [release(tables_only, tmp_path, UNIT, n, tmp_path).version for n in range(1, 5)]
        would = ferry("retention", "--dry-run")
        assert fits(would)
        assert "recs: would remove; 2 versions kept\n" in would.out
        assert f"from Redis {versions[0]}, {versions[1]}" in would.text
        assert f"from object storage {versions[0]}, {versions[1]}" in would.text
        assert "embeddings: nothing to remove, 0 versions kept" in would.out
        assert tables_only.registry.versions(UNIT) == versions[::-1]
        planned = ferry("retention", UNIT, "--dry-run", "--json").json()["units"][UNIT]
        done = ferry("retention", UNIT, "--json").json()
        assert done == {"units": {UNIT: planned}, "failures": {}}
        assert planned["kept"] == versions[:1:-1]
        assert tables_only.registry.versions(UNIT) == versions[:1:-1]
        assert ferry("retention").out.startswith("recs: nothing to remove, 2 versions kept\n")
        with tables_only.online.leases.hold(f"staging:{UNIT}", "ann"):
            held = ferry("retention")
        assert "recs (staging) is being changed by ann" in held.error()
        assert "embeddings: nothing to remove" in held.out
