"""What goes wrong, in one line: typos, versions that are not there, services that do not answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local.health import free_ports
from pipelines.config import Settings
from pipelines.release.context import ReleaseContext
from tests.release.cli.command import (
    TYPO,
    UNIT,
    Ferry,
    refused,
    spoil,
    two_live,
)
from tests.release.versions import live_version


@pytest.mark.parametrize(
    "command",
    [
        ("release", "list"),
        ("release", "show"),
        ("verify",),
        ("rollback", "--reason", "wrong prices"),
        ("retire", "--reason", "wrong prices"),
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
        (("retire", UNIT), "Missing option '--reason'"),
        (("retire", UNIT, "--reason", " \t "), "a retirement of recs needs a reason"),
        (
            ("retire", UNIT, "--reason", "bad"),
            "is live: there is nothing to retire",
        ),
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
    for command in ("rollback", "retire", "restore", "reconcile", "retention", "verify", "release"):
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
