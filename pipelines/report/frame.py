"""The pages that Airflow's UI shows: what they have in common, and what they may do."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup  # Comes with jinja2.

from pipelines.report.page import render_page

# Of this folder, not of the data.
_SCRIPT = Path(__file__).with_name("frame.js").read_text(encoding="utf-8")
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY = (
    "default-src 'none'; {script}style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'self'"
)
#: What a page of ours may do: no script runs on it but our own.
PAGE_POLICY = _POLICY.format(script=f"script-src 'sha256-{_SCRIPT_HASH}'; ")
#: What a stored report may do: no script runs on it at all.
REPORT_POLICY = _POLICY.format(script="")


def render_in_frame(template: str, base: str, here: str, content: Mapping[str, Any]) -> str:
    """Return a page; `base` is the path under which Airflow itself is, `here` the page's own."""
    # No text of the data is in it, and none can be: it is the same on every page.
    script = Markup(_SCRIPT)  # noqa: S704
    return render_page(template, {**content, "base": base, "here": here, "script": script})


def message_page(base: str, title: str, message: str, link: tuple[str, str] | None = None) -> str:
    """Return a page with one message, and a link (path in Airflow, text) for what to do next."""
    content = {"title": title, "message": message, "link": link}
    return render_in_frame("message.html.jinja", base, "", content)
