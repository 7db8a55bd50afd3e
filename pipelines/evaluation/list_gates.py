"""Gates for the lists that a version serves: coverage, concentration, overlap. Pure rules."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.evaluation.gates import Bound, GateResult, not_compared
from pipelines.gates_config import ListGatesConfig


@dataclass(frozen=True)
class ListMeasures:
    """What the lists of a version are like, see :mod:`pipelines.evaluation.lists`."""

    coverage: float
    top_share: float


def list_gates(unit: str, measures: ListMeasures, config: ListGatesConfig) -> list[GateResult]:
    """Judge how much of the catalogue the lists show, and how evenly."""
    key, results = f"gates.lists.{unit}", []
    if config.min_coverage is not None:
        bound = Bound(config.min_coverage, f"{key}.min_coverage")
        results.append(bound.judge("lists", "coverage", measures.coverage))
    if config.max_top_share is not None:
        bound = Bound(config.max_top_share, f"{key}.max_top_share", at_least=False)
        results.append(bound.judge("lists", "top_share", measures.top_share))
    return results


def overlap_gate(
    unit: str, overlap: float | None, version: int, config: ListGatesConfig
) -> GateResult:
    """Judge how much the lists have in common with those of the live `version`.

    `overlap` is None if no id has a list in both.
    """
    if config.min_overlap is None or overlap is None:
        reason = (
            f"no id has a list in {version}, which is live, and in this version"
            if overlap is None
            else f"gates.lists.{unit}.min_overlap is not set"
        )
        return not_compared("lists", "overlap", reason, overlap)
    bound = Bound(
        config.min_overlap,
        f"gates.lists.{unit}.min_overlap",
        why=f" with the lists of {version}, which is live",
        hint="the lists flipped; if that is meant, lower the bound for one run",
    )
    return bound.judge("lists", "overlap", overlap)
