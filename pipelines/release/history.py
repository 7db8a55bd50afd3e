"""How a unit's versions measured up, run date by run date: also those that are removed by now."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from pydantic import BaseModel, ConfigDict

from pipelines.models.base import Metric
from pipelines.release.manifest import Manifest
from pipelines.release.registry import Registry
from pipelines.run import RunType, parse_version


class RunDateLine(BaseModel):
    """The newest sealed version of one run date."""

    model_config = ConfigDict(frozen=True)

    run_date: date
    version: int
    run_type: RunType
    #: Whether a completed move ever made it live.
    was_live: bool
    #: Why the gates refused it.
    refusal: str | None = None
    metrics: dict[str, Metric] = {}

    def value(self, metric: str) -> float | None:
        """Return the value of a metric, or None if this version was not measured by it."""
        return self.metrics[metric].value if metric in self.metrics else None


def metric_history(
    registry: Registry, unit: str, last: int | None = None, until: int | None = None
) -> list[RunDateLine]:
    """Return the newest sealed version of each run date, oldest first.

    `last` is how many run dates at most; with `until`, no version that is newer than it. Versions
    that retention removed count: their manifests are kept.
    """
    manifests = list(itertools.islice(_newest_of_each_date(registry, unit, until), last))
    if not manifests:
        return []
    live = _live_since(registry, unit, manifests)
    return [_line(manifest, manifest.version in live) for manifest in reversed(manifests)]


def _newest_of_each_date(registry: Registry, unit: str, until: int | None) -> Iterator[Manifest]:
    stored, retired = set(registry.versions(unit)), set(registry.retired_versions(unit))
    found: date | None = None
    for version in sorted(stored | retired, reverse=True):
        if until is not None and version > until:
            continue
        if parse_version(version)[0] == found:
            continue
        manifest = registry.manifest(unit, version) if version in stored else None
        # A removal that was cut short leaves files of a version that counts as retired.
        manifest = manifest or registry.retired(unit, version)
        if manifest is not None:
            found = manifest.run_date
            yield manifest


def _live_since(registry: Registry, unit: str, manifests: Sequence[Manifest]) -> set[int]:
    """Return the versions that were live since the first of these was built."""
    since = min(manifest.created_at for manifest in manifests)
    live = set()
    for move in registry.newest_moves(unit):
        # No version was live before it was built: what is older need not be read.
        if move.at < since:
            break
        if move.version is not None:
            live.add(move.version)
    return live


def _line(manifest: Manifest, was_live: bool) -> RunDateLine:
    return RunDateLine(
        run_date=manifest.run_date,
        version=manifest.version,
        run_type=manifest.run_type,
        was_live=was_live,
        refusal=manifest.refusal,
        metrics=manifest.metrics,
    )


@dataclass(frozen=True)
class MetricSeries:
    """One metric over run dates, with its baselines; None where a date has no value."""

    name: str
    dates: list[date]
    values: list[float | None]
    baselines: dict[str, list[float | None]]


def metric_names(lines: Sequence[RunDateLine]) -> list[str]:
    """Return the names of all metrics, those of the newest run date first."""
    return list(dict.fromkeys(name for line in reversed(lines) for name in line.metrics))


def metric_series(lines: Sequence[RunDateLine], name: str) -> MetricSeries:
    """Return one metric of a history as a series.

    Champions are no series: each day's is another version.
    """
    measured = [line.metrics.get(name) for line in lines]
    baselines = dict.fromkeys(
        baseline
        for metric in measured
        if metric
        for baseline in metric.baselines
        if not is_champion(baseline)
    )
    return MetricSeries(
        name=name,
        dates=[line.run_date for line in lines],
        values=[metric.value if metric else None for metric in measured],
        baselines={
            baseline: [metric.baselines.get(baseline) if metric else None for metric in measured]
            for baseline in baselines
        },
    )


def is_champion(baseline: str) -> bool:
    """Tell whether the name of a baseline is that of the version that was live then."""
    return baseline.startswith("champion ")
