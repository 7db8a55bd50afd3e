"""The steps of one run, as its tasks call them: each reads and leaves its part in the lake,
object storage or Redis, so that any of them can be run again by itself.
"""

from __future__ import annotations

import json
import logging
import shutil
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from pipelines.config import PipelineConfig, Settings, Unit, load_pipeline_config
from pipelines.errors import ReleaseError
from pipelines.lake import RunPaths
from pipelines.models import registry as models
from pipelines.models.base import BuildInputs, Metric
from pipelines.release.activate import Activation, activate, refusal
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.gating import Candidate, judge_build, judge_data
from pipelines.release.publish import publish
from pipelines.release.runners import SparkRunner
from pipelines.release.stage import bring_model, load_model
from pipelines.release.stage_tables import stage_tables
from pipelines.release.tables import PreparedTables, prepare_tables
from pipelines.release.verify import SAVED_MODEL, verify_version
from pipelines.run import RunPlan, RunType
from pipelines.spark import size_shuffles

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

#: Hand-over folders of this many runs are kept for a look; the versions themselves are elsewhere.
_RUNS_KEPT = 3


class UnitResult(BaseModel):
    """What became of one unit in a run."""

    model_config = ConfigDict(frozen=True)

    unit: str
    outcome: Literal["live", "refused", "failed"]
    version: int | None
    reason: str
    metrics: dict[str, Metric] = {}


class RunSummary(BaseModel):
    """What became of a run (``runs/<version>/summary.json``)."""

    model_config = ConfigDict(frozen=True)

    run_date: date
    version: int
    units: list[UnitResult]


def plan_run(settings: Settings, run_date: date, run_type: RunType, run_id: str) -> RunPlan:
    """Check configuration and services, and reserve this run's version."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, run_id) as context:
        context.online.ping()
        context.registry.objects.check()
        version = context.registry.reserve_version(context.online, run_date, run_id)
    plan = RunPlan(
        run_date=run_date,
        version=version,
        run_type=run_type,
        run_id=run_id,
        units=config.models.enabled_units(),
    )
    _remove_old_runs(Path(settings.lake.runs), keep=plan.version)
    return plan


def _remove_old_runs(folder: Path, keep: int) -> None:
    versions = sorted((int(p.name) for p in folder.glob("*") if p.name.isdigit()), reverse=True)
    for version in [v for v in versions if v != keep][_RUNS_KEPT - 1 :]:
        shutil.rmtree(folder / str(version))


def ingest_step(spark: SparkSession, settings: Settings, plan: RunPlan) -> None:
    """Bring the run date's data into the lake."""
    from pipelines.data.ingest import ingest

    config = load_pipeline_config(settings.config)
    summary = ingest(spark, config.data, settings.lake, plan.run_date)
    path = Path(settings.lake.run(plan.version).ingest_summary)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(summary.model_dump_json(indent=2), encoding="utf-8")


def features_step(spark: SparkSession, settings: Settings, plan: RunPlan) -> None:
    """Compute samples and features, the rankers' feature tables, and the verdicts on the data."""
    from pipelines.features.samples import build_features
    from pipelines.models.feature_tables import feature_tables

    config = load_pipeline_config(settings.config)
    paths = settings.lake.run(plan.version)
    size_shuffles(spark, settings.lake.ratings)
    build_features(spark, config, settings.lake, paths, plan.run_date)
    inputs = BuildInputs(plan.run_date, paths, config, Path(paths.unit("features")))
    judge_data(spark, inputs)
    _prepare(config, feature_tables(spark, inputs), _shared_tables(paths))


def _shared_tables(paths: RunPaths) -> Path:
    return Path(paths.unit("features")) / "tables"


def _prepare(config: PipelineConfig, tables: Any, folder: Path) -> PreparedTables:
    return prepare_tables(
        tables,
        folder,
        item_id_type=config.data.item_id_type,
        bucket_size=config.release.bucket_size,
        golden_size=config.release.golden_size,
    )


def build_step(spark: SparkSession | None, settings: Settings, plan: RunPlan, unit: Unit) -> None:
    """Train, evaluate, judge, upload and seal one unit; what is sealed already is left as it is.

    A version that the gates refuse is sealed too: it is the evidence.
    """
    config = load_pipeline_config(settings.config)
    paths = settings.lake.run(plan.version)
    with release_context(settings, config.release, plan.run_id) as context:
        if context.registry.manifest(unit, plan.version):
            log.info("%s %s is sealed already: nothing to build", unit, plan.version)
            return
        folder = Path(paths.unit(unit))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        inputs = BuildInputs(plan.run_date, paths, config, folder / "work")
        inputs.workdir.mkdir()
        if spark is not None:
            size_shuffles(spark, paths.events, paths.samples)
        built = models.build(unit, spark, inputs)
        prepared = (
            [PreparedTables.load(_shared_tables(paths))] if models.uses_features(unit) else []
        )
        if built.tables:
            prepared.append(_prepare(config, built.tables, folder / "tables"))
        data = {
            "ingest": json.loads(Path(paths.ingest_summary).read_text(encoding="utf-8")),
            "training": json.loads(Path(paths.data_summary).read_text(encoding="utf-8")),
        }
        judged = judge_build(context, spark, Candidate(unit, inputs, built, prepared))
        registry, gates, champion = context.registry, judged.gates, judged.champion
        manifest = publish(
            registry, plan, unit, judged.built, prepared, data, folder, gates, champion
        )
    for name, metric in manifest.metrics.items():
        log.info("%s %s: %s", unit, name, metric.describe())
    if manifest.refusal:
        log.warning("%s %s is refused: %s", unit, plan.version, manifest.refusal)


def stage_step(spark: SparkSession, settings: Settings, plan: RunPlan, unit: Unit) -> None:
    """Put a sealed version online beside the live one and compare its answers."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, plan.run_id) as context:
        manifest = context.registry.sealed(unit, plan.version)
        if reason := refusal(plan.version, context.online.pointer(unit)):
            log.info("%s is not staged: %s", unit, reason)
            return
        if manifest.tables:
            staged = stage_tables(context, manifest, SparkRunner(spark))
            log.info("staged: memory: %s", staged.memory)
            log.info("staged: %s", staged.describe())
        if manifest.files_below(SAVED_MODEL):
            bring_model(context, manifest)
            load_model(context, manifest)
        for check in verify_version(context, manifest):
            log.info("staged: %s agree", check)


def activate_step(settings: Settings, plan: RunPlan, unit: Unit) -> Activation:
    """Switch one unit to this run's version, or say why not."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, plan.run_id) as context:
        return activate(context, context.registry.sealed(unit, plan.version))


def finish_step(settings: Settings, plan: RunPlan) -> RunSummary:
    """Write down what became of every unit, as object storage and Redis have it."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, plan.run_id) as context:
        units = [_result(context, plan, unit) for unit in plan.units]
    summary = RunSummary(run_date=plan.run_date, version=plan.version, units=units)
    path = Path(settings.lake.run(plan.version).root) / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(summary.model_dump_json(indent=2), encoding="utf-8")
    return summary


def _result(context: ReleaseContext, plan: RunPlan, unit: Unit) -> UnitResult:
    pointer = context.online.pointer(unit)
    live = pointer.version if pointer else None
    manifest = context.registry.manifest(unit, plan.version)
    if manifest is None:
        return UnitResult(
            unit=unit, outcome="failed", version=live, reason=f"{plan.version} was not built"
        )
    if live == plan.version:
        return UnitResult(
            unit=unit,
            outcome="live",
            version=live,
            reason="released by this run",
            metrics=manifest.metrics,
        )
    refused = manifest.refusal or refusal(plan.version, pointer)
    return UnitResult(
        unit=unit,
        outcome="refused" if refused else "failed",
        version=live,
        reason=refused or f"{plan.version} was built but did not go live",
        metrics=manifest.metrics,
    )


def require_success(summary: RunSummary) -> None:
    """Raise if a unit failed; one that was refused by rule is no failure.

    Raises:
        ReleaseError: names the units that failed, and what is live instead.
    """
    failed = [u for u in summary.units if u.outcome == "failed"]
    if failed:
        lines = "; ".join(f"{u.unit}: {u.reason}, live is {u.version or 'nothing'}" for u in failed)
        raise ReleaseError(f"{len(failed)} of {len(summary.units)} units failed: {lines}")
