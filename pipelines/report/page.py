"""How a page is made: templates of this folder, in which every text is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

_TEMPLATES = Path(__file__).parent


def render_page(template: str, content: Mapping[str, Any]) -> str:
    """Return a template with its content as one HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "change": change,
        "count": count,
        "second": second,
        "duration": duration,
    }
    return environment.get_template(template).render(content)


def number(value: float | None) -> str:
    """Return a measured value in four digits, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def change(value: float) -> str:
    """Return a difference with its sign."""
    return f"{value:+.4f}"


def count(value: int | None) -> str:
    """Return a number of rows with separators, or a dash."""
    return "–" if value is None else f"{value:,}"


def second(at: datetime) -> str:
    """Return a moment (UTC) to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """Return a duration as a person says it: 0.4 s, 12 s, 3 min 20 s, 1 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
