"""`ferry rollback`, `verify`, `restore`, `reconcile` and `retention` say what they did."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.models_config import UNITS
from pipelines.release.context import ReleaseContext
from tests.release.cli.command import (
    UNIT,
    Ferry,
    empty_redis,
    fits,
    of_unit,
    spoil,
    two_live,
)
from tests.release.versions import live_version, release


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
