"""The page: everything is on it, nothing is loaded from elsewhere, and texts stay texts."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from pipelines.comparison import Comparison, ModelResult, choose
from pipelines.models.base import Metric
from pipelines.report.comparison import render
from tests.test_comparison import DAY, SUMMARY, result

NASTY = '<script>alert("1")</script>$x^2$'


def page() -> str:
    lists = ModelResult(
        kind="lists",
        unit="recs",
        model="ease",
        metrics={
            "ndcg_at_10": Metric(value=0.1321, baselines={"popularity": 0.0834}),
            "coverage": Metric(value=0.25),
        },
        seconds=12.0,
    )
    scores = [
        result(NASTY, auc=0.8),
        result("din", auc=0.79),
        ModelResult(kind="scores", unit="dien", model="dien", seconds=1.0, error=f"no {NASTY}"),
    ]
    return render(
        Comparison(
            run_date=DAY,
            data=SUMMARY,
            results=[lists, *scores],
            choices=[choose("lists", [lists]), choose("scores", scores)],
        )
    )


def test_tables_choices_and_plots_are_there() -> None:
    html = page()
    assert "Serve <b>ease</b>: ndcg_at_10 0.1321 (popularity 0.0834)." in html
    assert "popularity 0.0834" in html
    # One plot of the models for each kind, and one of two metrics where there are both.
    assert html.count("<svg") == 3
    assert html.index("Recommendation lists") < html.index("Rankers and PMML pipelines")


def test_nothing_is_loaded_from_elsewhere() -> None:
    class References(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag not in {"script", "link", "img", "iframe"}
            self.found += [
                value or ""
                for name, value in attributes
                if name in {"src", "href", "xlink:href", "data"}
            ]

    parser = References()
    html = page()
    parser.feed(html)
    assert all(reference.startswith("#") for reference in parser.found)
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html


def test_texts_are_escaped() -> None:
    html = page()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
