"""`ferry history`: metrics by run date, over sealed and removed versions."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from pipelines.config import RetentionConfig
from pipelines.models.base import Metric
from pipelines.release.context import ReleaseContext
from pipelines.release.history import metric_history
from pipelines.release.retention import retain
from pipelines.run import make_version
from tests.release.cli.command import GATES, UNIT, Ferry, fits
from tests.release.versions import build, release

DAYS = [date(2026, 3, day) for day in (1, 2, 3, 4)]


def four_days(context: ReleaseContext, folder: Path) -> list[int]:
    """Release two days, build the second one again, refuse a third, and leave a fourth unsealed."""
    release(context, folder, UNIT, 1, folder, day=DAYS[0])
    release(context, folder, UNIT, 1, folder, day=DAYS[1])
    again = build(context, folder, UNIT, 2, folder, day=DAYS[1])
    refused = build(context, folder, UNIT, 1, folder, day=DAYS[2], gates=GATES)
    unsealed = make_version(DAYS[3], 1)
    context.registry.objects.put_text(f"models/{UNIT}/{unsealed}/golden.json", "{}")
    return [make_version(DAYS[0], 1), again.version, refused.version]


def test_the_newest_sealed_version_of_each_run_date(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    assert ferry("history", UNIT).out == "recs has no versions yet\n"
    assert ferry("history", UNIT, "--json").json() == []
    first, again, refused = four_days(tables_only, tmp_path)
    shown = ferry("history", UNIT)
    assert fits(shown)
    assert [line.split() for line in shown.out.splitlines()] == [
        ["run", "date", "version", "live", "auc"],
        ["2026-03-01", str(first), "yes", "0.7"],
        ["2026-03-02", str(again), "no", "0.7"],
        ["2026-03-03", str(refused), "refused", "0.7"],
    ]
    lines = ferry("history", UNIT, "--json").json()
    assert [line["version"] for line in lines] == [first, again, refused]
    assert [line["was_live"] for line in lines] == [True, False, False]
    assert lines[0]["metrics"]["auc"] == {
        "value": 0.7,
        "baselines": {"constant": 0.5},
        "higher_is_better": True,
    }
    newest = ferry("history", UNIT, "--last", 2, "--json").json()
    assert [line["version"] for line in newest] == [again, refused]


def test_what_retention_removed_is_still_told_of(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    for day in DAYS:
        release(tables_only, tmp_path, UNIT, 1, tmp_path, day=day)
    before = metric_history(tables_only.registry, UNIT)
    retain(tables_only, UNIT, RetentionConfig(online=1, stored=1), dry_run=False)
    assert len(tables_only.registry.versions(UNIT)) < len(DAYS)
    assert metric_history(tables_only.registry, UNIT) == before
    assert [line.run_date for line in before] == DAYS
    assert all(line.was_live for line in before)


def test_a_history_ends_where_it_is_told_to(tables_only: ReleaseContext, tmp_path: Path) -> None:
    first, again, _ = four_days(tables_only, tmp_path)
    until = metric_history(tables_only.registry, UNIT, until=again)
    assert [line.version for line in until] == [first, again]
    # The first attempt of the same day, which was live: the later one is of its future.
    earlier = metric_history(tables_only.registry, UNIT, until=again - 1)
    assert [(line.version, line.was_live) for line in earlier] == [(first, True), (again - 1, True)]


def test_the_plot_is_one_page_with_the_baselines(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    four_days(tables_only, tmp_path)
    page = tmp_path / "history.html"
    shown = ferry("history", UNIT, "--plot", page)
    assert shown.out.endswith(f"{page}: plots\n")
    html = page.read_text()
    assert html.count("<svg") == 1
    assert html.count("<polyline") == 2
    assert "2026-03-03: 0.7" in html
    assert "constant 0.5" in html
    assert not re.search(r"<script|<link|<img|src=|https?://", html)


def test_a_metric_that_is_not_measured_is_named(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    build(tables_only, tmp_path, UNIT, 1, tmp_path)
    message = ferry("history", UNIT, "--metric", "acu").error()
    assert message == "ferry: --metric acu: recs is not measured by it, but by auc"
    assert ferry("history", UNIT, "--metric", "auc").code == 0
    assert "did you mean recs?" in ferry("history", "rec").error()
    message = ferry("history", UNIT, "--plot", tmp_path / "no folder" / "page.html").error()
    assert message.endswith("page.html can't be written: No such file or directory")


def test_a_table_is_parted_where_it_would_be_too_wide(
    ferry: Ferry, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    manifest = build(tables_only, tmp_path, UNIT, 1, tmp_path)
    names = [f"a_metric_with_a_long_name_{number}" for number in range(5)]
    metrics = {name: Metric(value=number / 7) for number, name in enumerate(names)}
    tables_only.registry.seal(manifest.model_copy(update={"metrics": metrics}))
    shown = ferry("history", UNIT)
    assert fits(shown)
    heads = [line.split()[4:] for line in shown.out.splitlines() if line.startswith("run date")]
    assert len(heads) > 1
    assert [name for head in heads for name in head] == names
    assert "0.5714" in shown.out
