"""`ferry retire`, and how `status` and the other commands tell of a retired or a foreign unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipelines.config import Settings
from pipelines.release.context import ReleaseContext
from tests.release.cli.command import UNIT, Ferry, fits, of_unit, two_live
from tests.release.test_retire import trained_on
from tests.release.versions import release

NOT_ENABLED = "dien"


def test_retire_is_told_by_every_command(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    v1, v2 = two_live(tables_only, tmp_path)
    assert ferry("retire", UNIT, "--reason", "wrong prices").out == (
        f"nothing of recs is live instead of {v2}\n"
        "  'ferry rollback recs --reason …' makes it live again\n"
    )
    text = ferry("status")
    assert fits(text)
    assert f"recs: nothing is live retired {v2} was retired by " in text.text
    assert "UTC: wrong prices" in text.text
    assert "problem" not in text.out
    status = of_unit(ferry("status", "--json"))
    assert status["live"] is None
    assert status["retired"]["version"] == v2
    assert status["retired"]["why"] == "wrong prices"
    assert "(ferry, process " in status["retired"]["who"]

    assert "nothing of recs is live: it was retired by" in ferry("verify", UNIT).error()
    assert "it was retired by" in ferry("retire", UNIT, "--reason", "again").error()
    assert ferry("reconcile", UNIT).out == "recs: nothing to do\n"
    restored = ferry("restore", UNIT)
    assert (restored.code, restored.out.startswith("recs stays offline: ")) == (0, True)
    assert ferry("restore", "--json").json() == {"units": {}, "failures": {}}
    assert "nothing of recs is live in Redis" in ferry("recommend", "7").error()

    listed = ferry("release", "list", UNIT)
    assert fits(listed)
    assert f"{v2} retired manual" in listed.text
    assert "retired by" in listed.text
    shown = ferry("release", "show", UNIT)
    assert shown.out.startswith(f"recs {v2}: retired\n  retired by ")
    assert "UTC retirement to nothing by " in shown.text

    back = ferry("rollback", UNIT, "--reason", "they were right")
    assert back.out == f"recs {v2} is live, nothing was before\n"
    assert of_unit(ferry("status", "--json"))["retired"] is None
    done = ferry("retire", UNIT, "--reason", "wrong", "--json").json()
    assert (done["unit"], done["version"], done["why"]) == (UNIT, v2, "wrong")
    done = ferry("rollback", UNIT, "--to", v1, "--reason", "older", "--json").json()
    assert (done["version"], done["replaced"]) == (v1, None)


def test_a_unit_that_is_not_enabled_is_shown_while_it_is_retired(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    assert NOT_ENABLED not in ferry("status").out
    release(tables_only, tmp_path, NOT_ENABLED, 1, tmp_path)
    assert ferry("retire", NOT_ENABLED, "--reason", "too slow").code == 0
    assert of_unit(ferry("status", "--json"), NOT_ENABLED)["retired"]["why"] == "too slow"
    assert f"{NOT_ENABLED}: nothing is live" in ferry("status").out


def test_status_marks_what_is_live_from_another_lake(
    tables_only: ReleaseContext, tmp_path: Path, ferry_for: Callable[[Settings], Ferry]
) -> None:
    ferry = ferry_for(tables_only.settings)
    _, v2 = two_live(tables_only, tmp_path)
    assert "another lake" not in ferry("status").out, "an earlier Ferry built it"
    assert of_unit(ferry("status", "--json"))["from_another_lake"] is None
    trained_on(tables_only, tables_only.registry.sealed(UNIT, v2), "demo")
    lake_id = Path(tables_only.settings.lake.ratings) / "_lake_id"
    lake_id.parent.mkdir(parents=True)
    for content, expected in (("own", True), ("demo", False)):
        lake_id.write_text(content)
        text, status = ferry("status"), of_unit(ferry("status", "--json"))
        # A path is not broken, and pytest's may be longer than a line.
        assert fits(replace(text, out=text.out.replace(tables_only.settings.lake_root, "/lake")))
        assert ("lake from another lake: it was trained on data that" in text.text) == expected
        assert ("'ferry retire recs --reason …' takes it offline" in text.text) == expected
        assert (status["from_another_lake"], status["lake_note"] is not None) == (
            expected,
            expected,
        )
    lake_id.unlink()
    lake_id.mkdir()
    text, status = ferry("status"), of_unit(ferry("status", "--json"))
    assert text.code == 0
    assert "lake whether it is from this lake is unknown: " in text.text
    assert status["from_another_lake"] is None
    assert status["live"]["version"] == v2
