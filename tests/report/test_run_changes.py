"""What a report compares with the run date before."""

from __future__ import annotations

from pathlib import Path

from pipelines.config import PipelineConfig
from pipelines.models.base import Metric
from pipelines.release.context import ReleaseContext
from pipelines.run import make_version
from tests.release.versions import release
from tests.report.pages import DAY, NEXT, enrich, plan_of, section, write


def test_what_changed_since_the_run_date_before(
    tables_only: ReleaseContext, config: PipelineConfig, tmp_path: Path
) -> None:
    first = release(tables_only, tmp_path, "recs", 1, tmp_path, day=DAY)
    metrics = {
        "auc": Metric(value=0.6),
        "log_loss": Metric(value=0.5, higher_is_better=False),
    }
    enrich(tables_only, first, metrics=metrics)
    write(tables_only, config, plan_of("recs", day=DAY))
    # A second attempt of the same day, and what is newer: neither is the day before.
    release(tables_only, tmp_path, "recs", 2, tmp_path, day=NEXT)
    write(tables_only, config, plan_of("recs", day=NEXT, attempt=2))
    third = release(tables_only, tmp_path, "recs", 3, tmp_path, day=NEXT)
    enrich(
        tables_only,
        third,
        metrics={"auc": Metric(value=0.65), "log_loss": metrics["log_loss"]},
    )
    plan = plan_of("recs", day=NEXT, attempt=3)
    html = write(tables_only, config, plan)
    differences = section(html, "Differences to the run before")
    assert f"recs auc 0.6 0.65 +0.0500 {DAY}" in differences
    assert f"recs log_loss 0.5 0.5 +0.0000 {DAY}" in differences
    # Lists are [attempt, user, 1]: of the first attempt item 1 stands there once.
    assert "0 list 2 Title, &#34;3&#34; é –" in differences
    assert f"since the report of {DAY}" in differences
    history = section(html, "The last 30 runs")
    assert "2 run dates" in history
    assert f"{DAY}: 0.6" in html
    assert f"{NEXT}: 0.65" in html
    # Written again for the older day: what is newer is not of its past.
    again = write(tables_only, config, plan_of("recs", day=DAY))
    assert "1 run date " in section(again, "The last 30 runs")
    assert f"{NEXT}: 0.65" not in again


def test_a_report_of_another_ferry_is_not_compared_with(
    tables_only: ReleaseContext, config: PipelineConfig, tmp_path: Path
) -> None:
    release(tables_only, tmp_path, "recs", 1, tmp_path, day=DAY)
    registry = tables_only.registry
    registry.put_report(make_version(DAY, 1), "an older run", "<p>old</p>", '{"run_date": 3}')
    release(tables_only, tmp_path, "recs", 1, tmp_path, day=NEXT)
    html = write(tables_only, config, plan_of("recs", day=NEXT))
    differences = section(html, "Differences to the run before")
    assert "no report of an earlier run date can be read" in differences
    assert f"recs auc 0.7 0.7 +0.0000 {DAY}" in differences
