"""What the report of a run says: gathered after the run, also if half of it failed.

Kept as JSON beside the page, so that the next run's report can tell what changed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pipelines.config import PipelineConfig
from pipelines.data.contract import DataSummary, IngestSummary
from pipelines.errors import ReleaseError
from pipelines.evaluation.gates import GateResult, not_compared
from pipelines.lake import RunPaths
from pipelines.models.base import CalibrationBin
from pipelines.models_config import Unit
from pipelines.release.context import ReleaseContext
from pipelines.release.inputs import RunInputs
from pipelines.release.manifest import Manifest
from pipelines.release.outcome import UnitResult, unit_result
from pipelines.release.state import live_version
from pipelines.report.quarantine import QuarantinedRows, quarantined_rows
from pipelines.report.samples import SampleUser, sample_users
from pipelines.run import ActivateMode, RunPlan, RunType, parse_version

log = logging.getLogger(__name__)

_FAILED_STATES = ("failed", "upstream_failed")
_GATES = TypeAdapter(list[GateResult])

S = TypeVar("S", IngestSummary, DataSummary)


class TaskTime(BaseModel):
    """How a task of the run ended, when its last try began (UTC), and how many seconds it took."""

    model_config = ConfigDict(frozen=True)

    task_id: str
    state: str
    started: datetime | None = None
    seconds: float | None


class UnitContent(BaseModel):
    """What is known of one unit of the run."""

    model_config = ConfigDict(frozen=True)

    outcome: UnitResult
    #: Its tasks that failed or never began because another one failed.
    failed_tasks: list[str]
    champion: int | None = None
    #: Of the model, its lists and its tables; those of the data stand in the report once.
    gates: list[GateResult] = []
    calibration: list[CalibrationBin] = []

    @property
    def unit(self) -> str:
        """The unit's name."""
        return self.outcome.unit


class RunContent(BaseModel):
    """All that the report of one run says."""

    model_config = ConfigDict(frozen=True)

    run_date: date
    version: int
    run_type: RunType
    run_id: str
    activate: ActivateMode
    note: str
    training_days: int | None
    written_at: datetime
    units: list[UnitContent]
    #: Units that are configured but were no part of the run, and what is live of them.
    left_out: dict[str, int | None]
    data_gates: list[GateResult]
    ingest: IngestSummary | None
    training: DataSummary | None
    quarantine: list[QuarantinedRows]
    samples: list[SampleUser]
    tasks: list[TaskTime]
    #: Why there was nothing to ingest; None: there was.
    idle: str | None = None

    @property
    def has_nothing_new(self) -> bool:
        """Whether all that is live of the run's units was left as it is."""
        return all(unit.outcome.outcome == "unchanged" for unit in self.units)

    @property
    def failed_tasks(self) -> list[str]:
        """Tasks of the run as a whole that failed; those of units stand with the unit."""
        return [t.task_id for t in self.tasks if t.state == "failed" and "." not in t.task_id]


def gather(
    context: ReleaseContext,
    config: PipelineConfig,
    plan: RunPlan,
    tasks: Sequence[TaskTime],
    before: RunContent | None,
) -> RunContent:
    """Return what is known of a run; what is not known is None or empty, and raises nothing.

    `before` is the report that this one is compared with: its sample users are asked again.

    Raises:
        ServiceError: Redis or object storage does not answer.
    """
    manifests = {unit: _manifest(context, unit, plan.version) for unit in plan.units}
    built = [manifest for manifest in manifests.values() if manifest]
    paths = context.settings.lake.run(plan.version)
    inputs = RunInputs.of_run(paths)
    return RunContent(
        run_date=plan.run_date,
        version=plan.version,
        run_type=plan.run_type,
        run_id=plan.run_id,
        activate=plan.activate,
        note=plan.note,
        training_days=plan.training_days,
        written_at=datetime.now(UTC),
        units=[_unit(context, plan, unit, found, tasks) for unit, found in manifests.items()],
        left_out={
            unit: live_version(context, unit)
            for unit in config.models.enabled_units()
            if unit not in plan.units
        },
        data_gates=_data_gates(paths, built),
        ingest=_summary(IngestSummary, paths.ingest_summary, "ingest", built),
        training=_summary(DataSummary, paths.data_summary, "training", built),
        quarantine=quarantined_rows(context.settings.lake, plan),
        samples=sample_users(
            context, plan.units, [sample.user_id for sample in before.samples] if before else []
        ),
        tasks=list(tasks),
        idle=inputs.idle if inputs else None,
    )


def content_before(context: ReleaseContext, plan: RunPlan) -> RunContent | None:
    """Return the content of the newest report of an earlier run date, or None.

    One that another Ferry wrote in another way counts as none.
    """
    for version in context.registry.reports():
        if parse_version(version)[0] >= plan.run_date:
            continue
        text = context.registry.report_content(version)
        if text is None:
            return None
        try:
            return RunContent.model_validate_json(text)
        except ValidationError as error:
            log.warning(
                "reports/%s.json is of another Ferry, so nothing is compared with it: %s",
                version,
                error.errors()[0]["msg"],
            )
            return None
    return None


def _manifest(context: ReleaseContext, unit: Unit, version: int) -> Manifest | None:
    try:
        return context.registry.manifest(unit, version)
    except ReleaseError as error:
        # The unit's outcome, which reads it again, says so on the page.
        log.warning("%s %s: %s", unit, version, error)
        return None


def _unit(
    context: ReleaseContext,
    plan: RunPlan,
    unit: Unit,
    manifest: Manifest | None,
    tasks: Sequence[TaskTime],
) -> UnitContent:
    failed = [
        f"{task.task_id}: {task.state.replace('_', ' ')}"
        for task in tasks
        if task.task_id.startswith(f"{unit}.") and task.state in _FAILED_STATES
    ]
    try:
        outcome = unit_result(context, plan, unit)
    except ReleaseError as error:
        live = live_version(context, unit)
        outcome = UnitResult(unit=unit, outcome="failed", version=live, reason=str(error))
    if manifest is None:
        return UnitContent(outcome=outcome, failed_tasks=failed)
    gates = [*manifest.gates, *_publish_gates(context, unit, plan.version)]
    return UnitContent(
        outcome=outcome,
        failed_tasks=failed,
        champion=manifest.champion,
        gates=[gate for gate in gates if gate.group != "data"],
        calibration=manifest.calibration,
    )


def _publish_gates(context: ReleaseContext, unit: Unit, version: int) -> list[GateResult]:
    try:
        staged = context.registry.staging(unit, version)
    except ReleaseError as error:
        return [not_compared("publish", "staging", str(error))]
    return staged.gates if staged else []


def _data_gates(paths: RunPaths, built: Sequence[Manifest]) -> list[GateResult]:
    """Return the verdicts on the data: the run's own, or as the first unit sealed them."""
    try:
        return _GATES.validate_json(Path(paths.data_gates).read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        log.warning("%s: %s", paths.data_gates, _first_line(error))
    sealed = ([gate for gate in manifest.gates if gate.group == "data"] for manifest in built)
    return next((gates for gates in sealed if gates), [])


def _summary(kind: type[S], path: str, name: str, built: Sequence[Manifest]) -> S | None:
    """Return a summary from the run's folder, or as the first unit sealed it."""
    try:
        return kind.load(path)
    except (FileNotFoundError, ValidationError) as error:
        # The task was killed before, or while, it wrote the file.
        log.warning("%s: %s", path, _first_line(error))
        sealed = (manifest.data[name] for manifest in built if name in manifest.data)
        found = next(sealed, None)
        return kind.model_validate(found) if found else None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
