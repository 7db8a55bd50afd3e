"""The steps of one unit: build, stage, activate."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import Settings, load_pipeline_config
from pipelines.models import registry as models
from pipelines.models.base import BuildInputs
from pipelines.models_config import Unit
from pipelines.release.activate import Activation, activate, refusal
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.gating import Candidate, judge_build
from pipelines.release.inputs import INPUTS
from pipelines.release.manifest import Manifest
from pipelines.release.publish import publish
from pipelines.release.retention import build_lease
from pipelines.release.runners import LocalRunner, Runner
from pipelines.release.stage_model import bring_model, load_model
from pipelines.release.staged import stage_missing_tables
from pipelines.release.switch import STAGING_WAIT_SECONDS, hold_staging
from pipelines.release.tables import PreparedTables
from pipelines.release.verify import verify_version
from pipelines.run import RunPlan
from pipelines.spark import size_shuffles
from pipelines.steps.data import prepare
from pipelines.steps.run_folder import reopen
from pipelines.steps.unchanged import inputs_to_seal
from pipelines.work_time import timed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

#: Rows of all tables of a version that one process writes and reads back in some ten seconds.
_SMALL_ROWS = 500_000


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
        reopen(paths)
        folder = Path(paths.unit(unit))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        inputs = BuildInputs(plan.run_date, paths, config, folder / "work")
        inputs.workdir.mkdir()
        if spark is not None:
            size_shuffles(spark, paths.events, paths.samples)
        built = models.build(unit, spark, inputs)
        shared = models.feature_tables(unit)
        prepared = [PreparedTables.load(Path(paths.feature_tables)).only(shared)] if shared else []
        if built.tables:
            prepared.append(prepare(config, built.tables, folder / "tables"))
        if spark is not None:
            # All of it is on disk now: what the build cached would only take room from the gates.
            spark.catalog.clearCache()
        data: dict[str, Any] = {
            "ingest": json.loads(Path(paths.ingest_summary).read_text(encoding="utf-8")),
            "training": json.loads(Path(paths.data_summary).read_text(encoding="utf-8")),
        }
        if entered := inputs_to_seal(paths, config, unit):
            data[INPUTS] = entered
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
        with hold_staging(context, unit, wait=STAGING_WAIT_SECONDS):
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
