"""Gates for a run's data: schema, duplicates, references, freshness, volume. Pure rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.data.contract import IngestSummary
from pipelines.evaluation.gates import Bound, GateResult, not_compared
from pipelines.gates_config import DataGatesConfig


@dataclass(frozen=True)
class Volume:
    """Accepted events by day: the run date's, and those of the days with events before it."""

    on_run_date: int
    trailing: Sequence[int]
    #: From the newest event to the end of the run date.
    age_days: float


def data_gates(ingest: IngestSummary, volume: Volume, config: DataGatesConfig) -> list[GateResult]:
    """Judge what a run took in; one result for each rule."""

    def share(name: str, rows: int, of: int, most: float, hint: str) -> GateResult:
        bound = Bound(most, f"gates.data.max_{name}", at_least=False, hint=hint)
        return bound.judge("data", name, rows / max(of, 1))

    age = Bound(
        config.max_age_days,
        "gates.data.max_age_days",
        at_least=False,
        hint="the source is late: bring the missing days in and run again",
    )
    return [
        share(
            "quarantined_share",
            ingest.quarantined_rows,
            ingest.input_rows,
            config.max_quarantined_share,
            "see the reasons in the lake's quarantine/",
        ),
        share(
            "duplicate_share",
            ingest.exact_duplicates,
            ingest.input_rows,
            config.max_duplicate_share,
            "the source delivers rows more than once",
        ),
        share(
            "unknown_item_share",
            ingest.unknown_items,
            ingest.accepted,
            config.max_unknown_item_share,
            "the catalogue lacks items that have events: is it out of date?",
        ),
        age.judge("data", "age_days", volume.age_days),
        *_volume_gates(volume, config),
    ]


def _volume_gates(volume: Volume, config: DataGatesConfig) -> list[GateResult]:
    days = len(volume.trailing)
    if days < config.min_volume_days:
        reason = (
            f"{volume.on_run_date} events on the run date, and {days} earlier days with events to "
            f"compare with: it takes {config.min_volume_days} (gates.data.min_volume_days)"
        )
        return [not_compared("data", "volume_ratio", reason)]
    mean = sum(volume.trailing) / days
    why = f" of the mean of {days} days, {mean:.4g}"
    hint = f"{volume.on_run_date} events on the run date: is the source whole and not doubled?"
    ratio = volume.on_run_date / mean

    def bounded(name: str, threshold: float, *, at_least: bool) -> GateResult:
        key = f"gates.data.{name}"
        bound = Bound(threshold, key, at_least, baseline=mean, why=why, hint=hint)
        return bound.judge("data", name, ratio, "volume_ratio")

    return [
        bounded("min_volume_ratio", config.min_volume_ratio, at_least=True),
        bounded("max_volume_ratio", config.max_volume_ratio, at_least=False),
    ]
