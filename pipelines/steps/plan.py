"""The first step: what every task of the run must agree on."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime
from pathlib import Path

from pipelines.config import Settings, load_pipeline_config
from pipelines.data.identity import require_own_source
from pipelines.errors import ConfigError
from pipelines.release.context import release_context
from pipelines.run import ActivateMode, RunPlan, RunType, attempt_owner, require_complete
from pipelines.steps.run_folder import remove_old_runs


def plan_run(
    settings: Settings,
    run_date: date,
    run_type: RunType,
    run_id: str,
    activate: ActivateMode = "if_newest",
    *,
    units: Collection[str] | None = None,
    training_days: int | None = None,
    partial_day: bool = False,
    note: str = "",
    train_again: bool = False,
    clear_number: int = 0,
) -> RunPlan:
    """Check configuration and services, and reserve this run's version.

    `units` are those to build, all that are enabled without. `clear_number` says how often the
    run was started over: each time it gets a version of its own.

    Raises:
        ConfigError: the run date has not ended, or a unit is not enabled.
        OtherSourceError: the lake was made from another source.
    """
    config = load_pipeline_config(settings.config)
    require_complete(run_date, config.data.calendar, datetime.now(UTC), partial_day=partial_day)
    require_own_source(settings.lake, config.data)
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
        partial_day=partial_day,
        note=note,
        train_again=train_again,
    )
    remove_old_runs(Path(settings.lake.runs), keep=plan.version)
    return plan
