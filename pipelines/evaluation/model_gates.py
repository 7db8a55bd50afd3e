"""Gates for a unit's metrics: finite, floors, baselines, and what is live. Pure rules."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipelines.data.contract import DataSummary
from pipelines.evaluation.gates import Bound, GateResult, finite_or_none, not_compared
from pipelines.gates_config import MetricGateConfig
from pipelines.models.base import Metric


def model_gates(
    unit: str, metrics: Mapping[str, Metric], config: Mapping[str, MetricGateConfig]
) -> list[GateResult]:
    """Judge a unit's metrics by themselves and against their baselines."""
    results = [_finite_gate(metrics)]
    for name, gate in config.items():
        key = f"gates.models.{unit}.{name}"
        metric = metrics.get(name)
        if metric is None:
            reason = f"{unit} has no metric {name}, which {key} asks for: it has {_names(metrics)}"
            results.append(GateResult(group="model", name=name, verdict="refused", reason=reason))
            continue
        if gate.limit is not None:
            bound = Bound(gate.limit, f"{key}.limit", at_least=metric.higher_is_better)
            results.append(bound.judge("model", name, metric.value))
        results += [
            _against_baseline(name, metric, baseline, margin, f"{key}.beats.{baseline}")
            for baseline, margin in gate.beats.items()
        ]
    return results


def _names(metrics: Mapping[str, object]) -> str:
    return ", ".join(metrics) or "none"


def _finite_gate(metrics: Mapping[str, Metric]) -> GateResult:
    odd = [name for name, metric in metrics.items() if not math.isfinite(metric.value)]
    is_sound = bool(metrics) and not odd
    sound = f"all {len(metrics)} metrics are finite"
    broken = f"{', '.join(odd)}: not finite" if odd else "there are no metrics"
    return GateResult(
        group="model",
        name="finite",
        verdict="passed" if is_sound else "refused",
        value=len(odd),
        threshold=0,
        reason=sound if is_sound else f"{broken}: the fit diverged, or the holdout is too small",
    )


def _against_baseline(
    name: str, metric: Metric, baseline: str, margin: float, key: str
) -> GateResult:
    gate, value = f"{name} against {baseline}", metric.baselines.get(baseline)
    if value is None:
        reason = f"{name} has no baseline {baseline}, which {key} asks for: it has "
        reason += _names(metric.baselines)
        return GateResult(
            group="model",
            name=gate,
            verdict="refused",
            value=finite_or_none(metric.value),
            reason=reason,
        )
    bound = Bound(
        value + margin if metric.higher_is_better else value - margin,
        key,
        at_least=metric.higher_is_better,
        strict=True,
        baseline=value,
        why=f" ({baseline} {value:.4g}, margin {margin:g})",
    )
    return bound.judge("model", gate, metric.value, name)


def champion_gates(
    unit: str,
    metrics: Mapping[str, Metric],
    version: int,
    champion: Mapping[str, float],
    config: Mapping[str, MetricGateConfig],
) -> list[GateResult]:
    """Judge a unit's metrics against those of the live version on the same holdout.

    `champion` are the live version's values by name. A metric that it does not have, or whose
    value is not finite, is not compared.
    """
    results = []
    for name, gate in config.items():
        if gate.champion is None or name not in metrics:
            continue
        metric, value = metrics[name], champion.get(name)
        if value is None or not math.isfinite(value):
            reason = f"{name}: the champion {version} gives no finite value on today's holdout"
            results.append(not_compared("model", f"{name} against champion", reason, metric.value))
            continue
        slack = gate.champion.absolute + gate.champion.relative * abs(value)
        bound = Bound(
            value - slack if metric.higher_is_better else value + slack,
            f"gates.models.{unit}.{name}.champion",
            at_least=metric.higher_is_better,
            baseline=value,
            why=f" (champion {version} on the same holdout {value:.4g}, tolerance {slack:.4g})",
        )
        results.append(bound.judge("model", f"{name} against champion", metric.value, name))
    return results


def why_not_comparable(champion: DataSummary, today: DataSummary) -> str | None:
    """Return why the champion's evaluated fit can't be judged on today's holdout, or None.

    That fit has not seen its own holdout. It has not seen today's either if both were cut from the
    same lake by the same rule, its own no later than today's: with ``last_days`` all that it was
    trained on lies before its holdout's start; with ``last_fraction`` a user's training events
    only grow in number from day to day.
    """
    if champion.lake_id is None or champion.lake_id != today.lake_id:
        return "it was trained from another lake, whose events may be those of today's holdout"
    rules = [(s.holdout, s.holdout_days, s.holdout_fraction) for s in (champion, today)]
    if rules[0] != rules[1]:
        named = [" ".join(str(part) for part in rule if part is not None) for rule in rules]
        return f"its holdout was {named[0]}, today's is {named[1]}"
    if champion.run_date > today.run_date:
        return (
            f"its run date {champion.run_date} is after {today.run_date}: "
            "it may have been trained on today's holdout"
        )
    return None
