"""The report of a run: all sections, whatever became of the units, and nothing that could bite."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from pipelines.config import PipelineConfig
from pipelines.evaluation.gates import GateResult
from pipelines.evaluation.scores import Scored, calibration_bins
from pipelines.models.base import Metric
from pipelines.release.context import ReleaseContext
from pipelines.report.content import TaskTime
from pipelines.report.samples import STRANGER
from tests.release.versions import build, release
from tests.report.pages import DAY, NASTY, content_of, enrich, plan_of, section, write

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


def test_writing_a_report_loads_neither_spark_nor_tensorflow() -> None:
    code = (
        "import sys, pipelines.report.run_report\n"
        "print([m for m in ('tensorflow', 'keras', 'pyspark', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
