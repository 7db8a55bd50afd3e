"""The page of `ferry compare`: a table and plots of each kind of model."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup  # Comes with jinja2.

from pipelines.comparison import DECIDING, Comparison, Kind, ModelResult
from pipelines.report.page import render_page

_TITLES: dict[Kind, str] = {
    "lists": "Recommendation lists",
    "embeddings": "Embeddings",
    "scores": "Rankers and PMML pipelines",
}
#: Two metrics that are plotted against each other, by kind.
_PLOTTED: dict[Kind, tuple[str, str]] = {
    "lists": ("coverage", "ndcg_at_10"),
    "embeddings": ("ndcg_at_10", "recall_at_50"),
    "scores": ("calibration_error", "auc"),
}


def render(comparison: Comparison) -> str:
    """Return a comparison as one HTML page without external resources."""
    sections = [_section(comparison, choice.kind) for choice in comparison.choices]
    content = {
        "comparison": comparison,
        "sections": sections,
        "choices": {choice.kind: choice for choice in comparison.choices},
    }
    return render_page("comparison.html.jinja", content)


def _section(comparison: Comparison, kind: Kind) -> dict[str, Any]:
    results = comparison.of_kind(kind)
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    plots = [plot for plot in (_ranking(kind, results), _scatter(kind, results)) if plot]
    return {
        "kind": kind,
        "title": _TITLES[kind],
        "deciding": DECIDING[kind][0],
        "names": names,
        "results": results,
        "plots": plots,
    }


def _ranking(kind: Kind, results: Sequence[ModelResult]) -> Markup | None:
    """Plot the deciding metric of each model, and its baselines as lines."""
    name = DECIDING[kind][0]
    shown = [result for result in results if name in result.metrics][::-1]
    if not shown:
        return None
    figure, axes = _figure(max(2.0, 0.4 * len(shown) + 1.2))
    values = [result.metrics[name].value for result in shown]
    # Points and not bars: the axis does not begin at 0, or nothing could be told apart.
    axes.scatter(values, [_label(result.model) for result in shown], color="#3b6ea5", s=40)
    for place, value in enumerate(values):
        axes.annotate(
            f"{value:.4f}",
            (value, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    baselines = {
        baseline: value
        for result in shown
        for baseline, value in result.metrics[name].baselines.items()
    }
    for number, (baseline, value) in enumerate(baselines.items()):
        axes.axvline(
            value, color=f"C{number + 1}", linestyle="--", linewidth=1.2, label=_label(baseline)
        )
    if baselines:
        axes.legend(fontsize=7, loc="lower left")
    everything = [*values, *baselines.values()]
    room = (max(everything) - min(everything)) or abs(max(everything)) or 1.0
    axes.set_xlim(min(everything) - 0.3 * room, max(everything) + 0.25 * room)
    axes.set_xlabel(name)
    return _svg(figure)


def _scatter(kind: Kind, results: Sequence[ModelResult]) -> Markup | None:
    """Plot two metrics of each model against each other."""
    across, up = _PLOTTED[kind]
    shown = [r for r in results if across in r.metrics and up in r.metrics]
    if not shown:
        return None
    figure, axes = _figure(3.2)
    for result in shown:
        place = (result.metrics[across].value, result.metrics[up].value)
        axes.scatter(*place, color="#3b6ea5", s=28)
        axes.annotate(
            _label(result.model), place, xytext=(4, 3), textcoords="offset points", fontsize=7
        )
    axes.margins(0.15)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return _svg(figure)


def _figure(height: float) -> tuple[Any, Any]:
    # A figure of its own: pyplot would keep each one, and look for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    return figure, axes


def _label(text: str) -> str:
    # Matplotlib reads what stands between two dollars as a formula.
    return text.replace("$", r"\$")


def _svg(figure: Any) -> Markup:
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    # Made by matplotlib, which escapes what it is given; the prologue has no place within a page.
    return Markup(text[text.index("<svg") :])  # noqa: S704
