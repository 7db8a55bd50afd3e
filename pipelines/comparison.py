"""`ferry compare`: every configured model on one run date's data, and which one to serve.

All models of a kind are measured on the same holdout by the same code as in a build, so that the
numbers are those that the gates would see. Nothing is published.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from pipelines.config import PipelineConfig
from pipelines.data.contract import DataSummary
from pipelines.errors import FerryError
from pipelines.lake import Lake, RunPaths
from pipelines.models import registry as models
from pipelines.models.base import BuildInputs, Metric
from pipelines.models_config import RANKERS, UNITS, Unit

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

Kind = Literal["lists", "embeddings", "scores"]

#: What the models of a unit are compared with, and by what: a ranking of items, or a probability.
KINDS: dict[Unit, Kind] = {
    "recs": "lists",
    "embeddings": "embeddings",
    "interest_ranker": "scores",
    "ctr_pmml": "scores",
    **dict.fromkeys(RANKERS, "scores"),
}
#: The metric that decides, by kind, and the one that decides between equals.
DECIDING: dict[Kind, tuple[str, str]] = {
    "lists": ("ndcg_at_10", "recall_at_50"),
    "embeddings": ("recall_at_50", "ndcg_at_10"),
    "scores": ("auc", "log_loss"),
}
#: Models whose deciding metrics differ by less are equally good.
_SAME = 0.0005


class ModelResult(BaseModel):
    """One model's metrics; `error` says why there are none."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    unit: Unit
    model: str
    metrics: dict[str, Metric] = {}
    #: Of training and measuring all models of the unit.
    seconds: float
    error: str | None = None


class Choice(BaseModel):
    """The model of a kind that would be served, and why."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    model: str | None
    why: str


class Comparison(BaseModel):
    """All models on one run date's data."""

    model_config = ConfigDict(frozen=True)

    run_date: date
    data: DataSummary
    results: list[ModelResult]
    choices: list[Choice]

    def of_kind(self, kind: Kind) -> list[ModelResult]:
        """Return the results of a kind, best first, those without metrics last."""
        deciding = DECIDING[kind][0]
        return sorted(
            (result for result in self.results if result.kind == kind),
            key=lambda r: (deciding not in r.metrics, -_goodness(r, deciding)),
        )


def _goodness(result: ModelResult, name: str) -> float:
    """Return a metric so that more is better; the worst where there is none."""
    metric = result.metrics.get(name)
    if metric is None:
        return float("-inf")
    return metric.value if metric.higher_is_better else -metric.value


def choose(kind: Kind, results: Sequence[ModelResult]) -> Choice:
    """Return the best model that beats all of its baselines, or why there is none.

    Models whose deciding metrics are the same but for 0.0005 are told apart by the second one.
    """
    first, second = DECIDING[kind]
    able = [r for r in results if first in r.metrics]
    beating = [r for r in able if _beats_baselines(r.metrics[first])]
    if not beating:
        reason = f"no model beats its baselines by {first}" if able else "no model was measured"
        return Choice(kind=kind, model=None, why=reason)
    top = max(_goodness(r, first) for r in beating)
    equals = [r for r in beating if _goodness(r, first) >= top - _SAME]
    best = max(equals, key=lambda r: (_goodness(r, second), r.model))
    metric = best.metrics[first]
    why = f"{first} {metric.describe()}"
    others = [r for r in equals if r is not best]
    if others:
        names = ", ".join(r.model for r in others)
        why += f"; as good as {names}, and better by {second}"
    behind = [r for r in able if r not in equals]
    if behind:
        follower = max(behind, key=lambda r: _goodness(r, first))
        ahead = _goodness(best, first) - _goodness(follower, first)
        why += f"; {ahead:.4f} ahead of {follower.model}"
        if follower not in beating and ahead < 0:
            why += ", which does not beat its baselines"
    return Choice(kind=kind, model=best.model, why=why)


def _beats_baselines(metric: Metric) -> bool:
    sign = 1 if metric.higher_is_better else -1
    return all(sign * (metric.value - value) > 0 for value in metric.baselines.values())


def find_run(lake: Lake, run_date: date) -> RunPaths | None:
    """Return the newest run of a date whose features are still in the lake."""
    runs = Path(lake.runs)
    names = [p.name for p in runs.glob("*") if p.name.isdigit()] if runs.is_dir() else []
    for version in sorted(map(int, names), reverse=True):
        paths = lake.run(version)
        summary = Path(paths.data_summary)
        if summary.is_file() and DataSummary.load(str(summary)).run_date == run_date:
            return paths
    return None


def compare(
    spark: SparkSession,
    config: PipelineConfig,
    paths: RunPaths,
    run_date: date,
    units: Sequence[Unit] = UNITS,
    tell: Callable[[str], None] = log.info,
) -> Comparison:
    """Train and measure the models of `units`, those that are not enabled too.

    One that fails does not keep the others from being compared. `tell` is called with a line for
    each unit.
    """
    results: list[ModelResult] = []
    for unit in units:
        results += _compare_unit(spark, config, paths, run_date, unit)
        for result in results:
            if result.unit == unit:
                deciding = result.metrics.get(DECIDING[result.kind][0])
                said = deciding.describe() if deciding else result.error
                tell(f"{unit}: {result.model}: {said}")
    kinds = list(dict.fromkeys(KINDS[unit] for unit in units))
    return Comparison(
        run_date=run_date,
        data=DataSummary.load(paths.data_summary),
        results=results,
        choices=[choose(k, [r for r in results if r.kind == k]) for k in kinds],
    )


def _compare_unit(
    spark: SparkSession, config: PipelineConfig, paths: RunPaths, run_date: date, unit: Unit
) -> list[ModelResult]:
    kind, started = KINDS[unit], time.monotonic()
    workdir = Path(tempfile.mkdtemp(prefix="ferry-compare-"))
    try:
        measured = models.compare(unit, spark, BuildInputs(run_date, paths, config, workdir))
    except FerryError as error:
        seconds = time.monotonic() - started
        return [ModelResult(kind=kind, unit=unit, model=unit, seconds=seconds, error=str(error))]
    finally:
        shutil.rmtree(workdir)
    seconds = time.monotonic() - started
    return [
        ModelResult(kind=kind, unit=unit, model=name, metrics=metrics, seconds=seconds)
        for name, metrics in measured.items()
    ]
