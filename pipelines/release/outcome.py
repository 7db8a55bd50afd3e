"""What became of a run's units, as object storage and Redis have it."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipelines.models.base import Metric
from pipelines.models_config import Unit
from pipelines.release.activate import refusal
from pipelines.release.context import ReleaseContext
from pipelines.release.inputs import RunInputs
from pipelines.run import RunPlan


class UnitResult(BaseModel):
    """What became of one unit in a run."""

    model_config = ConfigDict(frozen=True)

    unit: str
    #: Unchanged: nothing was new for it, so that what is live stayed live.
    outcome: Literal["live", "refused", "unchanged", "failed"]
    version: int | None
    reason: str
    metrics: dict[str, Metric] = {}


class RunSummary(BaseModel):
    """What became of a run (``runs/<version>/summary.json``)."""

    model_config = ConfigDict(frozen=True)

    run_date: date
    version: int
    units: list[UnitResult]
    #: Why there was nothing to ingest; None: there was.
    idle: str | None = None

    def idleness(self) -> str | None:
        """Return what somebody is told of an idle day, or None: it was none."""
        if self.idle is None:
            return None
        return (
            f"{self.idle}. What is live has all of the data, so nothing was trained. If the day "
            "should have events, look at their source: a broken one looks the same"
        )

    def refusals(self) -> list[str]:
        """Return a line for each unit whose version was refused."""
        return [f"{u.unit}: {u.reason}" for u in self.units if u.outcome == "refused"]


def unit_result(context: ReleaseContext, plan: RunPlan, unit: Unit) -> UnitResult:
    """Return what became of one unit: live, refused by rule, left as it was, or failed."""
    pointer = context.online.pointers.get(unit)
    live = pointer.version if pointer else None
    manifest = context.registry.manifest(unit, plan.version)
    if manifest is None:
        inputs = RunInputs.of_run(context.settings.lake.run(plan.version))
        if inputs and (reason := inputs.reason(unit)):
            return UnitResult(unit=unit, outcome="unchanged", version=live, reason=reason)
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
    refused = refusal(context, manifest, plan.activate)
    return UnitResult(
        unit=unit,
        outcome="refused" if refused else "failed",
        version=live,
        reason=refused or f"{plan.version} was built but did not go live",
        metrics=manifest.metrics,
    )
