"""The comparison of models: which one is chosen, and that one failure is only its own."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from pipelines.comparison import Kind, ModelResult, choose, compare, find_run
from pipelines.data.contract import DataSummary
from pipelines.lake import Lake
from pipelines.models.base import Metric
from tests.models.world import make_world, rewrite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAY = date(2026, 3, 1)
SUMMARY = DataSummary(
    run_date=DAY,
    rows=800,
    users=40,
    items=36,
    catalogue_items=36,
    first_day=date(2026, 1, 1),
    last_day=DAY,
    positives=500,
    holdout="last_fraction",
    holdout_days=None,
    holdout_fraction=0.25,
    holdout_rows=200,
    holdout_users=40,
    set_aside_rows=0,
)


def result(model: str, kind: Kind = "scores", **values: float) -> ModelResult:
    metrics = {
        "auc": Metric(value=values["auc"], baselines={"constant": 0.5, "user_item_mean": 0.78}),
        "log_loss": Metric(value=values.get("log_loss", 0.5), higher_is_better=False),
    }
    return ModelResult(kind=kind, unit="din", model=model, metrics=metrics, seconds=1.0)


FAILED = ModelResult(kind="scores", unit="din", model="broken", seconds=1.0, error="no samples")


@pytest.mark.parametrize(
    ("results", "model", "why"),
    [
        ([result("a", auc=0.79), result("b", auc=0.80)], "b", "0.0100 ahead of a"),
        # The same AUC, but for noise: the better log-loss decides.
        (
            [result("a", auc=0.8001, log_loss=0.55), result("b", auc=0.8, log_loss=0.53)],
            "b",
            "as good as a, and better by log_loss",
        ),
        ([result("a", auc=0.78), result("b", auc=0.7)], None, "no model beats its baselines"),
        ([FAILED, result("a", auc=0.79)], "a", "auc 0.79 (constant 0.5, user_item_mean 0.78)"),
        ([FAILED], None, "no model was measured"),
    ],
)
def test_the_best_that_beats_its_baselines_is_chosen(
    results: list[ModelResult], model: str | None, why: str
) -> None:
    choice = choose("scores", results)
    assert choice.model == model
    assert why in choice.why


def test_the_newest_run_of_the_date_is_used(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert find_run(lake, DAY) is None
    for version, day in (
        (202603010001, DAY),
        (202603010002, DAY),
        (202603020001, date(2026, 3, 2)),
    ):
        paths = lake.run(version)
        Path(paths.root).mkdir(parents=True)
        SUMMARY.model_copy(update={"run_date": day}).save(paths.data_summary)
    (tmp_path / "runs" / "202603010003").mkdir()
    found = find_run(lake, DAY)
    assert found is not None
    assert found.root.endswith("202603010002")
    assert find_run(lake, date(2026, 2, 1)) is None


def test_a_model_that_fails_is_named_and_the_others_are_compared(
    spark: SparkSession, tmp_path: Path
) -> None:
    small = {"epochs": 2, "batch_size": 64, "learning_rate": 0.01}
    world = make_world(tmp_path / "w", neural_cf=small)
    inputs = world.inputs(tmp_path / "work")
    SUMMARY.save(inputs.paths.data_summary)

    def disliked(events: pa.Table) -> pa.Table:
        place = events.schema.get_field_index("rating")
        return events.set_column(place, "rating", pa.array([1.0] * len(events)))

    rewrite(world, "events", disliked)
    lines: list[str] = []
    found = compare(spark, inputs.config, inputs.paths, DAY, ["recs", "neural_cf"], lines.append)
    failed, measured = found.results
    assert (failed.unit, failed.metrics) == ("recs", {})
    assert failed.error is not None
    assert "no training positives" in failed.error
    assert failed.error in lines[0]
    assert measured.model == "neural_cf"
    assert {"auc", "log_loss", "calibration_error"} <= set(measured.metrics)
    assert [choice.kind for choice in found.choices] == ["lists", "scores"]
    assert found.choices[0].model is None
    assert found.of_kind("scores") == [measured]
