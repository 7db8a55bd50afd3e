"""The report of a run: all sections, whatever became of the units, and nothing that could bite."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config import PipelineConfig, load_pipeline_config
from pipelines.data.contract import IngestSummary, Reason
from pipelines.evaluation.gates import GateResult
from pipelines.evaluation.scores import Scored, calibration_bins
from pipelines.models.base import Metric
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.report.content import RunContent, TaskTime
from pipelines.report.run_report import write_run_report
from pipelines.report.samples import STRANGER
from pipelines.run import RunPlan, make_version
from tests.release.conftest import models, served, tables_only
from tests.release.versions import USERS, build, release
from tests.test_comparison import SUMMARY

__all__ = ["models", "served", "tables_only"]

NASTY = '<script>alert("1")</script>'
DAY, NEXT = date(2026, 3, 1), date(2026, 3, 2)
GATES = [
    GateResult(
        group="model",
        name="auc",
        verdict="passed",
        value=0.7,
        threshold=0.6,
        baseline=0.5,
        reason="auc is 0.7, must be more than 0.6",
    ),
    GateResult(
        group="lists", name="coverage", verdict="refused", value=0.01, threshold=0.05, reason=NASTY
    ),
    GateResult(group="data", name="volume", verdict="passed", reason="of the data"),
]
SECTIONS = (
    "Outcome",
    "Differences to the run before",
    "Gates",
    "Metrics",
    "The last 30 runs",
    "Scores and calibration",
    "Coverage",
    "Recommendations",
    "Data",
    "Quarantined rows",
    "Slowest tasks",
)


@pytest.fixture
def config(tables_only: ReleaseContext) -> PipelineConfig:
    return load_pipeline_config(tables_only.settings.config)


def plan_of(*units: str, day: date = DAY, attempt: int = 1, note: str = "") -> RunPlan:
    return RunPlan.model_validate(
        {
            "run_date": day,
            "version": make_version(day, attempt),
            "run_type": "manual",
            "run_id": f"manual__{day}T03:00:00+00:00/{attempt}",
            "units": units,
            "note": note,
        }
    )


def enrich(context: ReleaseContext, manifest: Manifest, **more: object) -> None:
    """Seal a version again with more in its manifest."""
    context.registry.seal(manifest.model_copy(update=more))


def write(
    context: ReleaseContext, config: PipelineConfig, plan: RunPlan, tasks: Sequence[TaskTime] = ()
) -> str:
    """Write a report and return its page, which is checked for what no page may have."""
    key = write_run_report(context, config, plan, tasks)
    assert key == f"reports/{plan.version}.html"
    assert context.registry.report_version(plan.run_id) == plan.version
    html = context.registry.report(plan.version)
    assert html is not None
    _is_self_contained(html)
    assert [re.sub("<.*?>", "", h) for h in re.findall(r"<h2.*?</h2>", html)] == list(SECTIONS)
    return html


def _is_self_contained(html: str) -> None:
    class Tags(HTMLParser):
        open: list[str]

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag not in {"script", "link", "img", "iframe", "object", "embed", "form"}
            for name, value in attributes:
                assert not name.startswith("on"), name
                assert name not in {"src", "srcset", "data", "action"}
                assert name != "href" or (value or "").startswith("#")

    Tags().feed(html)
    assert not re.search(r"url\(|@import", html)
    assert 'name="viewport"' in html


def section(html: str, title: str) -> str:
    """Return the text of one section, without its tags."""
    start = html.index(f">{title}</h2>")
    end = html.find("<h2", start)
    return " ".join(re.sub("<[^>]*>", " ", html[start:end]).split())


def content_of(context: ReleaseContext, plan: RunPlan) -> RunContent:
    text = context.registry.report_content(plan.version)
    assert text is not None
    return RunContent.model_validate_json(text)


def test_a_run_of_which_nothing_came(tables_only: ReleaseContext, config: PipelineConfig) -> None:
    plan = plan_of("recs", "embeddings", "ctr_pmml")
    tasks = [
        TaskTime(task_id="ingest", state="failed", started=datetime.now(UTC), seconds=75.0),
        TaskTime(task_id="recs.build", state="upstream_failed", started=None, seconds=None),
    ]
    html = write(tables_only, config, plan, tasks)
    outcome = section(html, "Outcome")
    assert "failed: ingest" in outcome
    assert (
        f"recs failed nothing {plan.version} was not built recs.build: upstream failed" in outcome
    )
    assert "interest_ranker no part of this run nothing" in outcome
    assert "nothing to compare with" in section(html, "Differences to the run before")
    assert "the data was not judged" in section(html, "Gates")
    assert f"recs no metrics: {plan.version} was not built" in section(html, "Metrics")
    assert "recs no version of it was ever sealed" in section(html, "The last 30 runs")
    assert f"ctr_pmml: {plan.version} was not built" in section(html, "Scores and calibration")
    assert "no unit of this run was measured" in section(html, "Coverage")
    samples = section(html, "Recommendations")
    assert "nothing of recs is live" in samples
    assert "no user with a history was found" in samples
    assert "ingest left no summary" in section(html, "Data")
    assert "ingest did not end" in section(html, "Quarantined rows")
    assert "ingest failed 1 min 15 s" in section(html, "Slowest tasks")
    assert "no times are known" in section(write(tables_only, config, plan), "Slowest tasks")


def test_live_refused_and_failed_side_by_side(
    tables_only: ReleaseContext, config: PipelineConfig, tmp_path: Path
) -> None:
    plan = plan_of("recs", "embeddings", "ctr_pmml", note=f"for the shop\n{NASTY}")
    release(tables_only, tmp_path, "recs", 1, tmp_path)
    refused = build(tables_only, tmp_path, "embeddings", 1, tmp_path, gates=GATES)
    metrics = {
        "auc": Metric(value=0.71, baselines={"constant": 0.5, "champion 202602280001": 0.72}),
        "coverage": Metric(value=0.25, baselines={"popularity": 0.03}),
        "odd": Metric(value=float("nan")),
    }
    enrich(tables_only, refused, metrics=metrics, champion=202602280001)
    html = write(tables_only, config, plan)
    assert "<script" not in html
    assert "for the shop\n&lt;script&gt;" in html
    outcome = section(html, "Outcome")
    assert f"recs live {plan.version} released by this run" in outcome
    assert re.search("embeddings refused nothing .*&lt;script&gt;", outcome)
    assert f"ctr_pmml failed nothing {plan.version} was not built" in outcome
    gates = section(html, "Gates")
    assert "data: volume passed" in gates
    assert gates.count("of the data") == 1
    assert "lists: coverage refused 0.01 0.05 – &lt;script&gt;" in gates
    assert "model: auc passed 0.7 0.6 0.5 auc is 0.7, must be more than 0.6" in gates
    assert "202602280001" in section(html, "Metrics")
    assert "0.71 constant 0.5 0.72 -0.0100" in section(html, "Metrics")
    coverage = section(html, "Coverage")
    assert "embeddings coverage of the holdout&#39;s lists 0.25 popularity 0.03" in coverage
    assert "embeddings coverage of all lists 0.01 threshold 0.05" in coverage
    samples = section(html, "Recommendations")
    # The lists of the test's versions begin with their attempt, and hold the user's own id.
    assert "Title, &#34;1&#34; é" in samples
    assert "nothing of embeddings is live" in samples
    assert "nothing of ctr_pmml is live" in samples
    assert "user (stranger) has no list of their own" in samples


def test_every_way_of_serving_side_by_side(
    served: ReleaseContext, config: PipelineConfig, models: Path, tmp_path: Path
) -> None:
    units = ("recs", "embeddings", "embedding_mlp")
    manifests = [release(served, tmp_path, unit, 1, models) for unit in units]
    labels, scores = [1.0, 0.0, 1.0, 0.0], [0.91, 0.12, 0.93, 0.64]
    rows = pa.table(
        {
            "label": labels,
            "user_rating_count": [1] * 4,
            "item_rating_count": [1] * 4,
        }
    )
    bins = calibration_bins(Scored.of(rows, pa.array(scores).to_numpy()))
    enrich(served, manifests[2], calibration=bins)
    plan = plan_of(*units)
    html = write(served, config, plan)
    assert "2 rows predicted 0.9 to 0.95: mean 0.920, observed 1.000" in html
    assert "Bars: 4 rows of the holdout" in section(html, "Scores and calibration")
    content = content_of(served, plan)
    assert [s.user_id for s in content.samples] == ["0", "1", "10", STRANGER]
    for sample in content.samples:
        assert sample.recommended is not None
        ways = {way.way: way for way in sample.ranked}
        assert list(ways) == ["ranked by embeddings", "ranked by tf_serving"]
        candidates = {item.item_id for item in sample.recommended.items}
        for way in ways.values():
            assert way.missing is None
            assert {item.item_id for item in way.items} == candidates
            assert way.version == plan.version
    first = content.samples[0]
    assert first.similar_to is not None
    assert [way.way for way in first.similar] == [
        "similar by embeddings",
        "similar by recs",
    ]
    assert "has no table similar_items" in (first.similar[1].missing or "")
    assert "A user who was never seen" in html


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


def test_documents_that_can_not_be_read_cost_only_their_section(
    tables_only: ReleaseContext, config: PipelineConfig, tmp_path: Path
) -> None:
    release(tables_only, tmp_path, "recs", 1, tmp_path)
    release(tables_only, tmp_path, "embeddings", 1, tmp_path)
    plan = plan_of("recs", "embeddings")
    objects, lake = tables_only.registry.objects, tables_only.settings.lake
    objects.put_text(f"models/recs/{plan.version}/manifest.json", '{"unit": "recs"}')
    objects.put_text(f"releases/embeddings/staged/{plan.version}.json", "{}")
    paths = lake.run(plan.version)
    for cut_off in (paths.ingest_summary, paths.data_summary, paths.data_gates):
        Path(cut_off).parent.mkdir(parents=True, exist_ok=True)
        Path(cut_off).write_text('{"run_da')
    (Path(lake.quarantine) / f"dt={DAY}").mkdir(parents=True)
    html = write(tables_only, config, plan)
    corrupt = f"models/recs/{plan.version}/manifest.json: the document is corrupt"
    outcome = section(html, "Outcome")
    assert re.search(f"recs failed {plan.version} .*{corrupt}", outcome)
    assert f"embeddings live {plan.version}" in outcome
    assert corrupt in section(html, "The last 30 runs")
    assert "publish: staging not compared" in section(html, "Gates")
    assert "ingest left no summary" in section(html, "Data")


def test_data_volumes_and_quarantined_rows(
    tables_only: ReleaseContext, config: PipelineConfig
) -> None:
    plan = plan_of("recs")
    lake = tables_only.settings.lake
    paths = lake.run(plan.version)
    IngestSummary(
        run_date=DAY,
        events_path="landing/ratings.csv",
        items_path="landing/items.csv",
        input_rows=12_345,
        accepted=12_300,
        accepted_on_run_date=90,
        quarantined={Reason.RATING_INVALID: 7, Reason.USER_ID_MISSING: 38},
        exact_duplicates=0,
        earlier_rows=0,
        later_rows=0,
        days_written=3,
        unknown_items=1,
        items=USERS,
        repeated_items=0,
        rejected_items=0,
        users=None,
    ).save(paths.ingest_summary)
    SUMMARY.save(paths.data_summary)
    folder = Path(lake.quarantine) / f"dt={DAY}"
    folder.mkdir(parents=True)
    bad = [("rating_invalid", f"rating {n}", f"{n},{NASTY},{'x' * 500}") for n in range(7)]
    table = pa.table(dict(zip(("reason", "detail", "raw"), zip(*bad, strict=True), strict=True)))
    pq.write_table(table, folder / "part-0.parquet")
    html = write(tables_only, config, plan)
    assert "<script" not in html
    data = section(html, "Data")
    assert "12,345, 3 days written" in data
    assert "800, 2026-01-01 to 2026-03-01; 500 positive" in data
    quarantine = section(html, "Quarantined rows")
    assert "rating invalid 7 user id missing 38" in quarantine
    assert "rating invalid 7 of this day" in quarantine
    (found,) = content_of(tables_only, plan).quarantine
    assert [row.detail for row in found.examples] == [f"rating {n}" for n in range(5)]
    assert "x" * 201 not in html
    assert "x" * 150 in html


def test_writing_a_report_loads_neither_spark_nor_tensorflow() -> None:
    code = (
        "import sys, pipelines.report.run_report\n"
        "print([m for m in ('tensorflow', 'keras', 'pyspark', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
