"""What a gate is: a value, a threshold and a verdict.

A gate passes, refuses, or says why there was nothing to compare with. Something that is missing
or not finite never passes. The rules themselves are in :mod:`pipelines.evaluation.data_gates`,
:mod:`~pipelines.evaluation.model_gates` and :mod:`~pipelines.evaluation.list_gates`, their bounds
in :mod:`pipelines.gates_config`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

Group = Literal["data", "model", "lists", "publish"]
Verdict = Literal["passed", "refused", "not_compared"]


class GateResult(BaseModel):
    """One gate's verdict, and what led to it.

    `value` must lie on the right side of `threshold`, which may have been derived from
    `baseline`. Each is None where there is none, also for a value that is not finite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: Group
    name: str
    verdict: Verdict
    value: float | None = None
    threshold: float | None = None
    baseline: float | None = None
    reason: str

    def describe(self) -> str:
        """Return the verdict in one line."""
        return f"{self.group} gate {self.name}: {self.verdict.replace('_', ' ')}: {self.reason}"


def refusal(gates: Iterable[GateResult]) -> str | None:
    """Return the reasons of the gates that refuse, joined, or None if none does."""
    return "; ".join(gate.reason for gate in gates if gate.verdict == "refused") or None


@dataclass(frozen=True)
class Bound:
    """A threshold, on which side of it a value must lie, and the key that sets it."""

    threshold: float
    key: str
    at_least: bool = True
    #: Whether the threshold itself is not enough.
    strict: bool = False
    baseline: float | None = None
    #: What the threshold is made of.
    why: str = ""
    #: What to look at when the gate refuses.
    hint: str = ""

    def judge(self, group: Group, name: str, value: float, what: str = "") -> GateResult:
        """Return whether `value` lies on the right side; one that is not finite does not.

        `what` names the value where it is not the gate's name.
        """
        side = (
            ("more than " if self.strict else "at least ")
            if self.at_least
            else ("less than " if self.strict else "at most ")
        )
        must = f"must be {side}{self.threshold:.4g}{self.why}"
        holds = self._holds(value)
        hint = f": {self.hint}" if self.hint and not holds else ""
        return GateResult(
            group=group,
            name=name,
            verdict="passed" if holds else "refused",
            value=finite_or_none(value),
            threshold=finite_or_none(self.threshold),
            baseline=finite_or_none(self.baseline),
            reason=f"{what or name} is {value:.4g}, {must} ({self.key}){hint}",
        )

    def _holds(self, value: float) -> bool:
        if not math.isfinite(value) or not math.isfinite(self.threshold):
            return False
        if self.strict:
            return value > self.threshold if self.at_least else value < self.threshold
        return value >= self.threshold if self.at_least else value <= self.threshold


def finite_or_none(value: float | None) -> float | None:
    """Return `value`, or None for one that is not finite."""
    # JSON has no NaN: a manifest that is read again must equal the one that was written.
    return value if value is not None and math.isfinite(value) else None


def not_compared(group: Group, name: str, reason: str, value: float | None = None) -> GateResult:
    """Return the verdict of a gate that had nothing to compare with."""
    return GateResult(
        group=group, name=name, verdict="not_compared", value=finite_or_none(value), reason=reason
    )
