"""Small plots as inline SVG: their geometry here, drawn by the macros of ``plots.html.jinja``.

A report has dozens of them. Matplotlib, which `ferry compare` uses, would take longer for them
than for all the rest of the page, and its axes can't be read at the width of a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeGuard

from pipelines.models.base import CalibrationBin
from pipelines.release.history import MetricSeries

#: The drawing area, in units of the view box; the labels stand around it.
WIDTH, HEIGHT = 240.0, 90.0
_ROOM = 0.08


@dataclass(frozen=True)
class Curve:
    """A line: paths without gaps, and points (x, y) with what they say."""

    name: str
    paths: list[str]
    points: list[tuple[float, float, str]]
    last: float | None


@dataclass(frozen=True)
class LinePlot:
    """A metric and its baselines over run dates."""

    name: str
    curves: list[Curve]
    #: Labels of the vertical axis at its upper and lower end.
    upper: str
    lower: str
    first: date
    last: date


@dataclass(frozen=True)
class Bar:
    """A bin of predictions: its place and height, and what it says."""

    x: float
    width: float
    height: float
    text: str


@dataclass(frozen=True)
class CalibrationPlot:
    """How often each prediction was made, and the observed share of positives against it."""

    bars: list[Bar]
    points: list[tuple[float, float, float, str]]
    most: int
    rows: int


def line_plot(series: MetricSeries) -> LinePlot | None:
    """Return a series as a plot over time, or None if it has no finite value."""
    rows = {series.name: series.values, **series.baselines}
    finite = [v for values in rows.values() for v in values if _is_finite(v)]
    if not any(_is_finite(value) for value in series.values):
        return None
    low, high = min(finite), max(finite)
    room = (high - low) * _ROOM or abs(high) * _ROOM or 1.0
    # Below 0 there is nothing to see of values that can't be negative.
    low, high = max(low - room, min(low, 0.0)), high + room
    first, last = series.dates[0], series.dates[-1]
    days = (last - first).days
    curves = []
    for name, values in rows.items():
        places = [
            (
                WIDTH * ((day - first).days / days if days else 0.5),
                HEIGHT * (high - value) / (high - low),
                f"{day}: {value:.4g}",
            )
            if _is_finite(value)
            else None
            for day, value in zip(series.dates, values, strict=True)
        ]
        curves.append(
            Curve(
                name=name,
                paths=_paths(places),
                points=[place for place in places if place],
                last=next((value for value in reversed(values) if _is_finite(value)), None),
            )
        )
    return LinePlot(series.name, curves, f"{high:.4g}", f"{low:.4g}", first, last)


def _is_finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _paths(places: Sequence[tuple[float, float, str] | None]) -> list[str]:
    """Return one polyline for each stretch without a gap."""
    stretches: list[list[str]] = [[]]
    for place in places:
        if place is None:
            stretches.append([])
        else:
            stretches[-1].append(f"{place[0]:.1f},{place[1]:.1f}")
    return [" ".join(stretch) for stretch in stretches if len(stretch) > 1]


def calibration_plot(bins: Sequence[CalibrationBin]) -> CalibrationPlot | None:
    """Return bins of predictions as a plot, or None if they hold no row."""
    most = max((found.count for found in bins), default=0)
    if not most:
        return None
    bars, points = [], []
    for found in bins:
        if found.mean_score is None or found.positive_share is None:
            continue
        text = (
            f"{found.count:,} rows predicted {found.lower:g} to {found.upper:g}: "
            f"mean {found.mean_score:.3f}, observed {found.positive_share:.3f}"
        )
        width = found.upper - found.lower
        bars.append(
            Bar(WIDTH * found.lower, WIDTH * width, HEIGHT * found.count / most, text),
        )
        # The more rows, the more a point says.
        radius = 1.5 + 2.5 * math.sqrt(found.count / most)
        x, y = WIDTH * found.mean_score, HEIGHT * (1 - found.positive_share)
        points.append((x, y, radius, text))
    return CalibrationPlot(bars, points, most, sum(found.count for found in bins))
