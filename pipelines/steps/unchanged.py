"""Which units of a run have nothing new, decided once, at the end of its ingest.

All later steps go by that decision, also if something else is live by then.
"""

from __future__ import annotations

import logging
from datetime import date, timedelta

from pipelines.config import PipelineConfig, Settings
from pipelines.data.contents import day_contents, table_content
from pipelines.data.identity import current_lake_id
from pipelines.errors import IdleDayError
from pipelines.lake import RunPaths
from pipelines.models_config import Unit
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.inputs import (
    Inputs,
    LiveInputs,
    RunInputs,
    digest,
    sealed_inputs,
    settings_inputs,
    why_train,
)
from pipelines.release.state import live_version
from pipelines.run import RunPlan

log = logging.getLogger(__name__)


def decide(settings: Settings, config: PipelineConfig, plan: RunPlan) -> None:
    """Note what enters this run's versions, and which units are not trained for it.

    Only while the run has the lake to itself, after its ingest.

    Raises:
        ServiceError: Redis or object storage does not answer.
    """
    paths = settings.lake.run(plan.version)
    inputs, reasons = _decided(settings, config, plan, paths.catalogue)
    for unit, reason in reasons.items():
        log.info("%s is trained: %s", unit, reason)
    for line in inputs.reasons():
        log.info(line)
    inputs.save(paths.inputs)


def decide_idle(
    settings: Settings, config: PipelineConfig, plan: RunPlan, idle: IdleDayError
) -> None:
    """Let a run end well for whose date the source has nothing, if all that it has is live.

    Only while the run has the lake to itself.

    Raises:
        IdleDayError: something is not live that ought to be, or the lake has later days.
        ServiceError: Redis or object storage does not answer.
    """
    newest = max(_days(settings, config), default=None)
    if newest is None or plan.run_date <= newest or not config.operations.skip_unchanged:
        raise idle
    inputs, reasons = _decided(settings, config, plan, settings.lake.items)
    if reasons:
        why = "; ".join(f"{unit}: {reason}" for unit, reason in reasons.items())
        raise IdleDayError(f"{idle}; it is not passed over as an idle day: {why}") from idle
    log.warning("nothing is ingested: %s", idle)
    for line in inputs.reasons():
        log.info(line)
    path = settings.lake.run(plan.version).inputs
    inputs.model_copy(update={"idle": str(idle)}).save(path)


def _decided(
    settings: Settings, config: PipelineConfig, plan: RunPlan, catalogue: str
) -> tuple[RunInputs, dict[str, str]]:
    """Return the inputs with what is unchanged, and why each other unit is trained."""
    inputs = RunInputs(
        data=_data_inputs(settings, config, plan, catalogue),
        settings={unit: settings_inputs(config, unit) for unit in plan.units},
        unchanged={},
    )
    unchanged: dict[str, int] = {}
    reasons: dict[str, str] = {}
    with release_context(settings, config.release, plan.run_id) as context:
        for unit in plan.units:
            live = live_inputs(context, unit)
            reason = why_train(
                plan, inputs.of(unit), live, skip_unchanged=config.operations.skip_unchanged
            )
            if live and reason is None:
                unchanged[unit] = live.version
            else:
                reasons[unit] = str(reason)
    return inputs.model_copy(update={"unchanged": unchanged}), reasons


def live_inputs(context: ReleaseContext, unit: Unit) -> LiveInputs | None:
    """Return the live version of a unit, and what entered it.

    None also where Redis does not have what ought to be live: that is for a new version to settle.
    """
    pointer = context.online.pointers.get(unit)
    if pointer is None or pointer.version != live_version(context, unit):
        return None
    manifest = context.registry.manifest(unit, pointer.version)
    if manifest is None:
        return None
    newer = [v for v in context.registry.versions(unit) if v > pointer.version]
    sealed = {v: found for v in newer if (found := context.registry.manifest(unit, v))}
    since = {version: sealed_inputs(found) for version, found in sealed.items()}
    return LiveInputs(pointer.version, sealed_inputs(manifest), since)


def note_data(settings: Settings, config: PipelineConfig, plan: RunPlan) -> None:
    """Note the data anew that features have read: another run may have changed the lake since.

    Only while the run has the lake to itself.
    """
    paths = settings.lake.run(plan.version)
    if (inputs := RunInputs.of_run(paths)) is None:
        return
    data = _data_inputs(settings, config, plan, paths.catalogue)
    if data != inputs.data:
        inputs.model_copy(update={"data": data}).save(paths.inputs)


def inputs_to_seal(paths: RunPaths, config: PipelineConfig, unit: Unit) -> Inputs | None:
    """Return what enters a unit's version that is built now; None: not known.

    Settings or code that have changed since the ingest may have entered in part.
    """
    inputs = RunInputs.of_run(paths)
    if inputs is None or inputs.settings.get(unit) != settings_inputs(config, unit):
        return None
    return inputs.of(unit)


def reason_to_skip(settings: Settings, plan: RunPlan, unit: Unit | None) -> str | None:
    """Return why nothing is done for a unit (None: for the whole run), or None: it is trained."""
    inputs = RunInputs.of_run(settings.lake.run(plan.version))
    if inputs is None:
        return None
    if unit is not None:
        return inputs.reason(unit)
    if not inputs.has_nothing_new:
        return None
    return "; ".join(inputs.reasons())


def _days(settings: Settings, config: PipelineConfig) -> dict[date, str]:
    """Return what identifies the files of each day that the lake has."""
    from pipelines.features.kept import lake_now

    lake = settings.lake
    found = lake_now(lake, current_lake_id(lake) or "", config).days
    return {day: files.digest for day, files in found.items()}


def _data_inputs(
    settings: Settings, config: PipelineConfig, plan: RunPlan, catalogue: str
) -> dict[str, str]:
    """Return the inputs that are data. (Users' attributes are none: no model reads them.)"""
    first = plan.run_date - timedelta(days=plan.training_days - 1) if plan.training_days else None
    days = {
        day: files
        for day, files in _days(settings, config).items()
        if (first or day) <= day <= plan.run_date
    }
    contents = day_contents(settings.lake, days)
    return {
        "the lake": current_lake_id(settings.lake) or "",
        "the events": digest({day.isoformat(): rows for day, rows in contents.items()}),
        "the catalogue": table_content(catalogue, ("item_id",)),
        "training_days": str(plan.training_days),
    }
