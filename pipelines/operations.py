"""What is done to releases between runs, as DAGs call it: look, repair, roll back, clean up."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipelines.config import Settings, load_pipeline_config
from pipelines.errors import FerryError, ReleaseError
from pipelines.evaluation.gates import GateResult
from pipelines.models_config import UNITS, Unit
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.manifest import Manifest
from pipelines.release.restore import NOT_STAGED, NOT_YET, reconcile, restore, was_ever_live
from pipelines.release.retention import Removal, retain
from pipelines.release.rollback import Rollback, roll_back
from pipelines.release.rules import known_unit
from pipelines.release.runners import LocalRunner
from pipelines.release.status import data_age_days
from pipelines.release.switch import STAGING_WAIT_SECONDS
from pipelines.release.verify import canary_reads, verify_version
from pipelines.run import RunPlan

log = logging.getLogger(__name__)


def _here() -> LocalRunner:
    """Write in this process.

    A spawned one imports the program of its parent first, and Airflow's can't be imported in the
    environment that it gives to tasks.
    """
    return LocalRunner(workers=1)


class UnitCheck(BaseModel):
    """What an online check found of one unit: all three are empty if it is well."""

    model_config = ConfigDict(frozen=True)

    unit: str
    live: int | None = None
    #: What was lost and is back, in one line each.
    repaired: list[str] = []
    #: What was compared and agrees.
    checks: list[str] = []
    #: What somebody has to look at.
    problems: list[str] = []


def online_check(settings: Settings, owner: str) -> list[UnitCheck]:
    """Bring every unit to its desired state, compare golden answers, and look at the data's age.

    Units that were never live, or are retired, are left out. A unit that fails does not keep the
    others from it.
    """
    config = load_pipeline_config(settings.config)
    limit = config.max_live_age_days
    with release_context(settings, config.release, owner) as context:
        today = config.data.calendar.day_of(datetime.now(UTC))
        checks = [_check(context, unit, limit, today) for unit in UNITS]
    return [check for check in checks if check is not None]


def _check(
    context: ReleaseContext, unit: Unit, max_age_days: int | None, today: date
) -> UnitCheck | None:
    """Return what was found of a unit, or None if nothing of it ought to be live."""
    done: list[str] = []
    checks: list[str] = []
    live: int | None = None
    problems: list[str] = []
    try:
        if not was_ever_live(context, unit):
            return None
        done = reconcile(context, unit, _here(), wait=STAGING_WAIT_SECONDS)
        pointer = context.online.pointers.get(unit)
        if pointer is not None:
            live = pointer.version
            manifest = context.registry.sealed(unit, live)
            checks = [*verify_version(context, manifest), *canary_reads(context, manifest)]
            age = data_age_days(manifest, today)
            if max_age_days is not None and age > max_age_days:
                problems.append(
                    f"{unit} {live} is stale: its data are to {manifest.run_date}, {age} days "
                    f"ago, at most {max_age_days} are allowed (operations.max_live_age_days)"
                )
    except FerryError as error:
        problems.append(f"{unit}: {error}")
    undone = [line for line in done if line.startswith((NOT_YET, NOT_STAGED))]
    return UnitCheck(
        unit=unit,
        live=live,
        repaired=[line for line in done if line not in undone],
        checks=checks,
        problems=[*problems, *(f"{unit}: {line}" for line in undone)],
    )


def require_well(checks: Sequence[UnitCheck]) -> None:
    """Raise if an online check left a problem.

    Raises:
        ReleaseError: names every problem.
    """
    if problems := [problem for check in checks for problem in check.problems]:
        raise ReleaseError("; ".join(problems))


def restore_units(settings: Settings, unit: str | None, owner: str) -> dict[str, list[str]]:
    """Rebuild one unit, or all that were ever live, from object storage, without training.

    Returns what was done and checked, by unit.

    Raises:
        ReleaseError: names every unit that could not be restored; the others are.
    """
    config = load_pipeline_config(settings.config)
    done: dict[str, list[str]] = {}
    failures: list[str] = []
    with release_context(settings, config.release, owner) as context:
        chosen = [known_unit(unit)] if unit else [u for u in UNITS if was_ever_live(context, u)]
        for name in chosen:
            try:
                done[name] = restore(context, name, _here())
            except FerryError as error:
                failures.append(f"{name}: {error}")
                continue
            for line in done[name]:
                log.info(line)
    if failures:
        raise ReleaseError("; ".join(failures))
    return done


def rollback_unit(
    settings: Settings, unit: str, version: int | None, reason: str, owner: str
) -> Rollback:
    """Make an earlier version of a unit live again."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, owner) as context:
        return roll_back(context, known_unit(unit), version, reason, _here(), once=True)


def release_facts(settings: Settings, unit: Unit, version: int) -> dict[str, Any]:
    """Return what a release tells of itself: version, run_date (ISO), and metrics by name."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, "a notice") as context:
        return context.registry.sealed(unit, version).facts


def retire_versions(settings: Settings, unit: Unit, *, dry_run: bool) -> Removal:
    """Remove a unit's old versions, or only say which; returns them."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, "retention") as context:
        removal = retain(context, unit, config.retention, dry_run=dry_run)
    log.info("%s: %s %s", unit, "would remove" if dry_run else "removed", removal)
    return removal


def live_now(settings: Settings) -> str:
    """Return what is live of every unit in one line, for whoever is called at night."""
    config = load_pipeline_config(settings.config)
    try:
        with release_context(settings, config.release, "a notice") as context:
            pointers = {unit: context.online.pointers.get(unit) for unit in UNITS}
    except FerryError as error:
        return f"what is live can't be read: {error}"
    live = [f"{unit} {pointer.version}" for unit, pointer in pointers.items() if pointer]
    return f"live now: {', '.join(live) or 'nothing'}"


def approval_text(settings: Settings, plan: RunPlan, unit: Unit) -> str:
    """Return what somebody needs to decide on a version, as Markdown."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, plan.run_id) as context:
        manifest = context.registry.sealed(unit, plan.version)
        pointer = context.online.pointers.get(unit)
    return _approval_text(manifest, pointer.version if pointer else None)


def reject(settings: Settings, plan: RunPlan, unit: Unit, how: str) -> None:
    """Keep a run's version of a unit from going live; `how` as in "rejected by Ann"."""
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, plan.run_id) as context:
        context.registry.reject(unit, plan.version, how)
    log.warning("%s %s is %s", unit, plan.version, how)


def _approval_text(manifest: Manifest, live: int | None) -> str:
    lines = [f"Live now: {live or 'nothing'}. Version {manifest.version} is staged beside it.", ""]
    lines += [f"* {name} {metric.describe()}" for name, metric in manifest.metrics.items()]
    lines += ["", "| gate | value | threshold | verdict |", "|---|---|---|---|"]
    lines += [_gate_row(gate) for gate in manifest.gates]
    return "\n".join(lines)


def _gate_row(gate: GateResult) -> str:
    numbers = ["" if n is None else f"{n:.4g}" for n in (gate.value, gate.threshold)]
    return f"| {gate.group}: {gate.name} | {' | '.join(numbers)} | {gate.verdict} |"
