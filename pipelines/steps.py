"""The steps of one run, as its tasks call them: each reads and leaves its part in the lake,
object storage or Redis, so that any of them can be run again by itself.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipelines.config import PipelineConfig, Settings, load_pipeline_config
from pipelines.errors import ConfigError, NoDataError, NothingToDoError, ReleaseError
from pipelines.lake import RunPaths
from pipelines.models import registry as models
from pipelines.models.base import BuildInputs
from pipelines.models_config import Unit
from pipelines.online.leases import Lease
from pipelines.release.activate import Activation, activate, refusal
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.gating import Candidate, judge_build, judge_data
from pipelines.release.manifest import Manifest
from pipelines.release.outcome import RunSummary, unit_result
from pipelines.release.publish import publish
from pipelines.release.retention import build_lease
from pipelines.release.runners import LocalRunner, Runner
from pipelines.release.stage_model import bring_model, load_model
from pipelines.release.staged import stage_missing_tables
from pipelines.release.switch import hold_staging
from pipelines.release.tables import PreparedTables, prepare_tables
from pipelines.release.verify import verify_version
from pipelines.run import ActivateMode, RunPlan, RunType, attempt_owner, require_past
from pipelines.spark import size_shuffles
from pipelines.work_time import timed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

#: Hand-over folders of this many runs are kept for a look; the versions themselves are elsewhere.
_RUNS_KEPT = 3
#: A run that has not been touched for so long was killed, and nobody has gone on with it.
_ABANDONED_SECONDS = 3 * 86_400
#: Runs that read or change the lake wait so long for each other: several days of a backfill.
_LAKE_WAIT_SECONDS = 3600.0
#: So long for an online check, or another run, that stages the same unit.
_STAGING_WAIT_SECONDS = 600.0
SUMMARY = "summary.json"
#: Rows of all tables of a version that one process writes and reads back in some ten seconds.
_SMALL_ROWS = 500_000


def plan_run(
    settings: Settings,
    run_date: date,
    run_type: RunType,
    run_id: str,
    activate: ActivateMode = "if_newest",
    *,
    units: Collection[str] | None = None,
    training_days: int | None = None,
    note: str = "",
    clear_number: int = 0,
) -> RunPlan:
    """Check configuration and services, and reserve this run's version.

    `units` are those to build, all that are enabled without. `clear_number` says how often the
    run was started over: each time it gets a version of its own.

    Raises:
        ConfigError: the run date is in the future, or a unit is not enabled.
    """
    require_past(run_date, datetime.now(UTC).date())
    config = load_pipeline_config(settings.config)
    enabled = config.models.enabled_units()
    if unknown := sorted(set(units or ()) - set(enabled)):
        raise ConfigError(
            f"{', '.join(unknown)}: not enabled in {settings.config}; enabled: {', '.join(enabled)}"
        )
    with release_context(settings, config.release, run_id) as context:
        context.online.ping()
        context.registry.objects.check()
        version = context.registry.reserve_version(
            context.online.leases, run_date, attempt_owner(run_id, clear_number)
        )
    plan = RunPlan(
        run_date=run_date,
        version=version,
        run_type=run_type,
        run_id=run_id,
        units=tuple(unit for unit in enabled if not units or unit in units),
        activate=activate,
        training_days=training_days,
        note=note,
    )
    _remove_old_runs(Path(settings.lake.runs), keep=plan.version)
    return plan


def _remove_old_runs(folder: Path, keep: int) -> None:
    """Remove the hand-over folders of all but the newest runs that are over.

    Several plans may do so at the same time.
    """
    others = [p for p in folder.glob("*") if p.name.isdigit() and int(p.name) != keep]
    over = sorted((int(path.name) for path in others if _is_over(path)), reverse=True)
    for version in over[_RUNS_KEPT - 1 :]:
        shutil.rmtree(folder / str(version), ignore_errors=True)


def _is_over(run: Path) -> bool:
    """Tell whether nothing goes on in a run's folder: what failed there may be repaired for days.

    Without a summary the run may be under way, as several days of a backfill are.
    """
    try:
        if time.time() - run.stat().st_mtime > _ABANDONED_SECONDS:
            return True
        summary = RunSummary.model_validate_json((run / SUMMARY).read_bytes())
    except (FileNotFoundError, ValidationError):
        return False
    return all(unit.outcome != "failed" for unit in summary.units)


def _reopen(paths: RunPaths) -> None:
    """Note that a run is under way again, whose task was cleared after it had ended."""
    (Path(paths.root) / SUMMARY).unlink(missing_ok=True)


@contextmanager
def _lake(settings: Settings, config: PipelineConfig, plan: RunPlan) -> Iterator[Lease]:
    """Keep other runs from the lake: none may read a day that another one is writing."""
    with (
        release_context(settings, config.release, plan.run_id) as context,
        context.online.leases.hold(
            "lake", plan.run_id, label=f"the lake {settings.lake.root}", wait=_LAKE_WAIT_SECONDS
        ) as lease,
    ):
        yield lease
        # Whoever took it meanwhile may have written what was read.
        lease.require()


@timed
def ingest_step(spark: SparkSession, settings: Settings, plan: RunPlan) -> None:
    """Bring the run date's data into the lake, and the catalogue of that moment into the run.

    Raises:
        NothingToDoError: in a backfill, the day has no data.
    """
    from pipelines.data.ingest import ingest

    config = load_pipeline_config(settings.config)
    paths = settings.lake.run(plan.version)
    _reopen(paths)
    try:
        with _lake(settings, config, plan):
            summary = ingest(spark, config.data, settings.lake, plan.run_date)
            # Another day's ingest replaces the lake's, maybe before this run's features read it.
            spark.read.parquet(settings.lake.items).write.mode("overwrite").parquet(paths.catalogue)
    except NoDataError as error:
        if plan.run_type != "backfill":
            raise
        raise NothingToDoError(f"{plan.run_date} is left out: {error}") from error
    path = Path(paths.ingest_summary)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(summary.model_dump_json(indent=2), encoding="utf-8")


@timed
def features_step(spark: SparkSession, settings: Settings, plan: RunPlan) -> None:
    """Compute samples and features, the rankers' feature tables, and the verdicts on the data."""
    from pipelines.features.samples import build_features
    from pipelines.models.feature_tables import feature_tables

    config = load_pipeline_config(settings.config)
    paths = settings.lake.run(plan.version)
    _reopen(paths)
    size_shuffles(spark, settings.lake.ratings)
    with _lake(settings, config, plan):
        build_features(
            spark,
            config,
            settings.lake,
            paths,
            plan.run_date,
            plan.training_days,
            catalogue=paths.catalogue,
        )
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


@timed
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
        _reopen(paths)
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


@timed
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
        with hold_staging(context, unit, wait=_STAGING_WAIT_SECONDS):
            if manifest.tables:
                _stage_tables(context, manifest, runner)
            if manifest.has_model:
                bring_model(context, manifest)
                load_model(context, manifest)
            for check in verify_version(context, manifest):
                log.info("staged: %s agree", check)


def stage_small(settings: Settings, plan: RunPlan, unit: Unit) -> bool:
    """Stage a sealed version in this process, if its tables are small; returns whether it did.

    Spark takes longer to start than these take to write.
    """
    with _release(settings, plan, unit) as context:
        manifest = context.registry.sealed(unit, plan.version)
    if sum(meta.rows for meta in manifest.tables) > _SMALL_ROWS:
        return False
    stage_step(LocalRunner(workers=1), settings, plan, unit)
    return True


def _stage_tables(context: ReleaseContext, manifest: Manifest, runner: Runner) -> None:
    staged = stage_missing_tables(context, manifest, runner)
    if staged is None:
        log.info("%s %s: all tables are in Redis already", manifest.unit, manifest.version)
        return
    for gate in staged.gates:
        log.info("staged: %s", gate.describe())
    log.info("staged: %s", staged.describe())


@timed
def activate_step(settings: Settings, plan: RunPlan, unit: Unit) -> Activation:
    """Switch one unit to this run's version, or say why not."""
    with _release(settings, plan, unit) as context:
        manifest = context.registry.sealed(unit, plan.version)
        return activate(context, manifest, plan.activate)


@timed
def report_step(settings: Settings, plan: RunPlan, tasks: Sequence[Mapping[str, Any]]) -> str:
    """Write the report of a run and return its key.

    `tasks` are those that have ended, each with `task_id`, `state` and `duration` (seconds).
    """
    from pipelines.report.run_report import TaskTime, write_run_report

    config = load_pipeline_config(settings.config)
    times = [
        TaskTime(task_id=task["task_id"], state=task["state"], seconds=task["duration"])
        for task in tasks
    ]
    with release_context(settings, config.release, plan.run_id) as context:
        return write_run_report(context, config, plan, times)


@timed
def finish_step(settings: Settings, plan: RunPlan) -> RunSummary:
    """Write down what became of every unit, as object storage and Redis have it."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, plan.run_id) as context:
        units = [unit_result(context, plan, unit) for unit in plan.units]
    summary = RunSummary(run_date=plan.run_date, version=plan.version, units=units)
    path = Path(settings.lake.run(plan.version).root) / SUMMARY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(summary.model_dump_json(indent=2), encoding="utf-8")
    return summary


def require_success(summary: RunSummary) -> None:
    """Raise if a unit failed; one that was refused by rule is no failure.

    Raises:
        ReleaseError: names the units that failed, what is live instead, and what was refused.
    """
    failed = [u for u in summary.units if u.outcome == "failed"]
    if failed:
        lines = "; ".join(f"{u.unit}: {u.reason}, live is {u.version or 'nothing'}" for u in failed)
        refused = "; ".join(["", "not live, by rule: " + ", ".join(summary.refusals())])
        raise ReleaseError(
            f"{len(failed)} of {len(summary.units)} units failed: {lines}"
            + (refused if summary.refusals() else "")
        )
