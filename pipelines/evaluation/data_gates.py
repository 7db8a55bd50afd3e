"""Gates for a run's data: schema, duplicates, references, freshness, volume. Pure rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from math import exp, log
from statistics import median

from pipelines.data.contract import IngestSummary
from pipelines.evaluation.gates import Bound, GateResult, not_compared
from pipelines.gates_config import DataGatesConfig


@dataclass(frozen=True)
class Volume:
    """Accepted events by day: the run date's, and those of complete days with events before it."""

    run_date: date
    on_run_date: int
    trailing: Mapping[date, int]
    #: From the newest event to the end of the run date.
    age_days: float
    #: Whether the run date was complete when it was read.
    complete: bool = True


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
    """Compare the run date with what is usual: with days like it, as far as these are alike.

    Days of its weekday, if there are enough of them; else all. Where the days before differ among
    themselves by more than the bounds, these give way: to so many deviations (robust, of the
    logarithm of a day's ratio to its own likes) as `volume_deviations` says.
    """
    days = len(volume.trailing)
    if not volume.complete:
        reason = f"{volume.run_date} had not ended when it was read: complete days are compared"
        return [not_compared("data", "volume_ratio", reason)]
    if days < config.min_volume_days:
        reason = (
            f"{volume.on_run_date} events on the run date, and {days} complete earlier days with "
            f"events to compare with: it takes {config.min_volume_days} "
            "(gates.data.min_volume_days)"
        )
        return [not_compared("data", "volume_ratio", reason)]
    like_it = _like(volume.run_date, volume.trailing, config.min_volume_days)
    usual = median(like_it.values())
    weekday = f"{volume.run_date:%A}s" if len(like_it) < days else "days"
    why = f" of the median of {len(like_it)} {weekday}, {usual:.4g}"
    hint = f"{volume.on_run_date} events on the run date: is the source whole and not doubled?"
    spread = exp(config.volume_deviations * _deviation(volume.trailing, config.min_volume_days))

    def bounded(name: str, set_to: float, threshold: float, *, at_least: bool) -> GateResult:
        wider = "" if threshold == set_to else f", wider than {set_to:g} as these days differ so"
        bound = Bound(
            threshold, f"gates.data.{name}", at_least, baseline=usual, why=why + wider, hint=hint
        )
        return bound.judge("data", name, volume.on_run_date / usual, "volume_ratio")

    least, most = config.min_volume_ratio, config.max_volume_ratio
    return [
        bounded("min_volume_ratio", least, min(least, 1 / spread), at_least=True),
        bounded("max_volume_ratio", most, max(most, spread), at_least=False),
    ]


def _like(day: date, days: Mapping[date, int], least: int) -> dict[date, int]:
    """Return the days of the same weekday but for `day` itself, or all if these are too few."""
    others = {d: count for d, count in days.items() if d != day}
    same = {d: count for d, count in others.items() if d.weekday() == day.weekday()}
    return same if len(same) >= least else others


def _deviation(days: Mapping[date, int], least: int) -> float:
    """Return by how much a day differs from its likes: the median deviation, as of a normal one.

    (Of a normal distribution, 1.4826 times the median absolute deviation is the standard one.)
    """
    ratios = []
    for day, count in days.items():
        like_it = _like(day, days, least)
        if like_it:
            ratios.append(abs(log(count / median(like_it.values()))))
    return 1.4826 * median(ratios) if ratios else 0.0
