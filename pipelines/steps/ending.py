"""The last steps: the report, and what became of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config import Settings, load_pipeline_config
from pipelines.errors import ReleaseError
from pipelines.release.context import release_context
from pipelines.release.inputs import RunInputs
from pipelines.release.outcome import RunSummary, unit_result
from pipelines.run import RunPlan
from pipelines.work_time import timed


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
    paths = settings.lake.run(plan.version)
    inputs = RunInputs.of_run(paths)
    idle = inputs.idle if inputs else None
    summary = RunSummary(run_date=plan.run_date, version=plan.version, units=units, idle=idle)
    path = Path(paths.summary)
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
        refused = ", ".join(summary.refusals())
        raise ReleaseError(
            f"{len(failed)} of {len(summary.units)} units failed: {lines}"
            + (f"; not live, by rule: {refused}" if refused else "")
        )
