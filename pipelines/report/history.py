"""The page of `ferry history --plot`: a unit's metrics by run date."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.release.history import RunDateLine, metric_series
from pipelines.report.page import render_page
from pipelines.report.plots import line_plot


def render(unit: str, lines: Sequence[RunDateLine], names: Sequence[str]) -> str:
    """Return the metrics `names` of a history, which is not empty, as one self-contained page."""
    plots = [line_plot(metric_series(lines, name)) for name in names]
    content = {
        "unit": unit,
        "lines": lines,
        "names": names,
        "drawn": [plot for plot in plots if plot],
    }
    return render_page("history.html.jinja", content)
