"""The steps of one run, as its tasks call them: each reads and leaves its part in the lake,
object storage or Redis, so that any of them can be run again by itself.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import PipelineConfig, Settings, load_pipeline_config
from pipelines.errors import ReleaseError
from pipelines.lake import RunPaths
from pipelines.models import registry as models
from pipelines.models.base import BuildInputs
from pipelines.models_config import Unit
from pipelines.release.activate import Activation, activate, refusal
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.gating import Candidate, judge_build, judge_data
from pipelines.release.manifest import Manifest
from pipelines.release.outcome import RunSummary, unit_result
from pipelines.release.publish import publish
from pipelines.release.retention import Removal, build_lease, retain
from pipelines.release.rollback import Rollback, roll_back
from pipelines.release.rules import known_unit
from pipelines.release.runners import LocalRunner, Runner
from pipelines.release.stage_model import bring_model, load_model
from pipelines.release.staged import stage_missing_tables
from pipelines.release.switch import hold_staging
from pipelines.release.tables import PreparedTables, prepare_tables
from pipelines.release.verify import verify_version
from pipelines.run import ActivateMode, RunPlan, RunType
from pipelines.spark import size_shuffles

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

#: Hand-over folders of this many runs are kept for a look; the versions themselves are elsewhere.
_RUNS_KEPT = 3


def plan_run(
    settings: Settings,
    run_date: date,
    run_type: RunType,
    run_id: str,
    activate: ActivateMode = "if_newest",
) -> RunPlan:
    """Check configuration and services, and reserve this run's version."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, run_id) as context:
        context.online.ping()
        context.registry.objects.check()
        version = context.registry.reserve_version(context.online.leases, run_date, run_id)
    plan = RunPlan(
        run_date=run_date,
        version=version,
        run_type=run_type,
        run_id=run_id,
        units=config.models.enabled_units(),
        activate=activate,
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
    with (
        _release(settings, plan, unit) as context,
        context.online.leases.hold(
            build_lease(unit, plan.version), context.owner, label=f"{unit} {plan.version}"
        ) as lease,
    ):
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
        shared = models.feature_tables(unit)
        prepared = [PreparedTables.load(_shared_tables(paths)).only(shared)] if shared else []
        if built.tables:
            prepared.append(_prepare(config, built.tables, folder / "tables"))
        if spark is not None:
            # All of it is on disk now: what the build cached would only take room from the gates.
            spark.catalog.clearCache()
        data = {
            "ingest": json.loads(Path(paths.ingest_summary).read_text(encoding="utf-8")),
            "training": json.loads(Path(paths.data_summary).read_text(encoding="utf-8")),
        }
        judged = judge_build(context, spark, Candidate(unit, inputs, built, prepared))
        registry, gates, champion = context.registry, judged.gates, judged.champion
        manifest = publish(
            registry,
            plan,
            unit,
            judged.built,
            prepared,
            data,
            folder,
            gates,
            champion,
            confirm=lease.require,
        )
    for name, metric in manifest.metrics.items():
        log.info("%s %s: %s", unit, name, metric.describe())
    if manifest.refusal:
        log.warning("%s %s is refused: %s", unit, plan.version, manifest.refusal)


@contextmanager
def _release(settings: Settings, plan: RunPlan, unit: Unit) -> Iterator[ReleaseContext]:
    """Open what a unit's release needs; the owner of its leases is this unit of this run."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, f"{plan.run_id}, {unit}") as context:
        yield context


def release_refusal(settings: Settings, plan: RunPlan, unit: Unit) -> str | None:
    """Return why a unit's sealed version will not go live, or None if it may."""
    with _release(settings, plan, unit) as context:
        return refusal(context, context.registry.sealed(unit, plan.version), plan.activate)


def stage_step(runner: Runner, settings: Settings, plan: RunPlan, unit: Unit) -> None:
    """Put a sealed version online beside the live one and compare its answers.

    A version that may not go live is not staged.
    """
    with _release(settings, plan, unit) as context:
        manifest = context.registry.sealed(unit, plan.version)
        if reason := refusal(context, manifest, plan.activate):
            log.info("%s is not staged: %s", unit, reason)
            return
        pointer = context.online.pointers.get(unit)
        if pointer and pointer.version == plan.version:
            # What is lost of a live version is for a reconciliation to bring back.
            log.info("%s %s is live already", unit, plan.version)
            return
        with hold_staging(context, unit):
            if manifest.tables:
                _stage_tables(context, manifest, runner)
            if manifest.has_model:
                bring_model(context, manifest)
                load_model(context, manifest)
            for check in verify_version(context, manifest):
                log.info("staged: %s agree", check)


def _stage_tables(context: ReleaseContext, manifest: Manifest, runner: Runner) -> None:
    staged = stage_missing_tables(context, manifest, runner)
    if staged is None:
        log.info("%s %s: all tables are in Redis already", manifest.unit, manifest.version)
        return
    for gate in staged.gates:
        log.info("staged: %s", gate.describe())
    log.info("staged: %s", staged.describe())


def activate_step(settings: Settings, plan: RunPlan, unit: Unit) -> Activation:
    """Switch one unit to this run's version, or say why not."""
    with _release(settings, plan, unit) as context:
        manifest = context.registry.sealed(unit, plan.version)
        return activate(context, manifest, plan.activate)


def rollback_step(
    settings: Settings, unit: str, version: int | None, reason: str, owner: str
) -> Rollback:
    """Make an earlier version of a unit live again."""
    config = load_pipeline_config(settings.config)
    # In this process: a spawned one imports the program of its parent first, and Airflow's can't
    # be imported in the environment that it gives to tasks.
    runner = LocalRunner(workers=1)
    with release_context(settings, config.release, owner) as context:
        return roll_back(context, known_unit(unit), version, reason, runner, once=True)


def retention_step(settings: Settings, unit: Unit, *, dry_run: bool) -> Removal:
    """Remove a unit's old versions, or only say which; returns them."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, "retention") as context:
        removal = retain(context, unit, config.retention, dry_run=dry_run)
    log.info("%s: %s %s", unit, "would remove" if dry_run else "removed", removal)
    return removal


def finish_step(settings: Settings, plan: RunPlan) -> RunSummary:
    """Write down what became of every unit, as object storage and Redis have it."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, plan.run_id) as context:
        units = [unit_result(context, plan, unit) for unit in plan.units]
    summary = RunSummary(run_date=plan.run_date, version=plan.version, units=units)
    path = Path(settings.lake.run(plan.version).root) / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(summary.model_dump_json(indent=2), encoding="utf-8")
    return summary


def require_success(summary: RunSummary) -> None:
    """Raise if a unit failed; one that was refused by rule is no failure.

    Raises:
        ReleaseError: names the units that failed, and what is live instead.
    """
    failed = [u for u in summary.units if u.outcome == "failed"]
    if failed:
        lines = "; ".join(f"{u.unit}: {u.reason}, live is {u.version or 'nothing'}" for u in failed)
        raise ReleaseError(f"{len(failed)} of {len(summary.units)} units failed: {lines}")
