"""Reports of small runs, written and read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from html.parser import HTMLParser

from pipelines.config import PipelineConfig
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.report.content import RunContent, TaskTime
from pipelines.report.run_report import write_run_report
from pipelines.run import RunPlan, make_version

NASTY = '<script>alert("1")</script>'
DAY, NEXT = date(2026, 3, 1), date(2026, 3, 2)
SECTIONS = (
    "Outcome",
    "Differences to the run before",
    "Gates",
    "Metrics",
    "The last 30 runs",
    "Scores and calibration",
    "Coverage",
    "Recommendations",
    "Data",
    "Quarantined rows",
    "Slowest tasks",
)


def plan_of(*units: str, day: date = DAY, attempt: int = 1, note: str = "") -> RunPlan:
    return RunPlan.model_validate(
        {
            "run_date": day,
            "version": make_version(day, attempt),
            "run_type": "manual",
            "run_id": f"manual__{day}T03:00:00+00:00/{attempt}",
            "units": units,
            "note": note,
        }
    )


def enrich(context: ReleaseContext, manifest: Manifest, **more: object) -> None:
    """Seal a version again with more in its manifest."""
    context.registry.seal(manifest.model_copy(update=more))


def write(
    context: ReleaseContext, config: PipelineConfig, plan: RunPlan, tasks: Sequence[TaskTime] = ()
) -> str:
    """Write a report and return its page, which is checked for what no page may have."""
    key = write_run_report(context, config, plan, tasks)
    assert key == f"reports/{plan.version}.html"
    assert context.registry.report_version(plan.run_id) == plan.version
    html = context.registry.report(plan.version)
    assert html is not None
    _is_self_contained(html)
    assert [re.sub("<.*?>", "", h) for h in re.findall(r"<h2.*?</h2>", html)] == list(SECTIONS)
    return html


def _is_self_contained(html: str) -> None:
    class Tags(HTMLParser):
        open: list[str]

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag not in {"script", "link", "img", "iframe", "object", "embed", "form"}
            for name, value in attributes:
                assert not name.startswith("on"), name
                assert name not in {"src", "srcset", "data", "action"}
                assert name != "href" or (value or "").startswith("#")

    Tags().feed(html)
    assert not re.search(r"url\(|@import", html)
    assert 'name="viewport"' in html


def section(html: str, title: str) -> str:
    """Return the text of one section, without its tags."""
    start = html.index(f">{title}</h2>")
    end = html.find("<h2", start)
    return " ".join(re.sub("<[^>]*>", " ", html[start:end]).split())


def content_of(context: ReleaseContext, plan: RunPlan) -> RunContent:
    text = context.registry.report_content(plan.version)
    assert text is not None
    return RunContent.model_validate_json(text)
