"""`ferry release list` and `show`."""

from __future__ import annotations

from pathlib import Path

from pipelines.evaluation.gates import Verdict
from pipelines.release.context import ReleaseContext
from tests.release.cli.command import (
    REASON,
    UNIT,
    Ferry,
    fits,
    refused,
    two_live,
)


def test_the_list_of_versions_is_readable_with_long_reasons(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    assert ferry("release", "list", UNIT).out == "recs has no versions yet\n"
    assert ferry("release", "list", UNIT, "--json").json() == []
    v1, v2 = two_live(tables_only, tmp_path)
    v3 = refused(tables_only, tmp_path, 3).version
    tables_only.registry.objects.put_text(f"models/{UNIT}/{v3 + 1}/golden.json", "{}")
    assert ferry("rollback", UNIT, "--reason", "wrong [prices]").code == 0
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
    assert "    wrong [prices]" in lines
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
