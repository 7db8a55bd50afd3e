"""The pages over real services: what they show, what they escape, and how they fail."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from local.health import free_ports
from pipelines.config import Settings
from pipelines.evaluation.gates import GateResult
from pipelines.models.base import Built, ScoredRequest
from pipelines.release.activate import activate
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import PMML_FILE, Manifest
from pipelines.release.publish import publish
from pipelines.release.retire import retire
from pipelines.release.rollback import roll_back
from pipelines.report.frame import PAGE_POLICY, REPORT_POLICY
from tests.online.test_pmml import PMML
from tests.plugins.conftest import Pages
from tests.release.versions import RUNNER, plan, prepare, raw_row, release, stage, tables

NASTY = '<script>alert("1")</script>&amp;'
GATES = [
    GateResult(group="model", name="auc", verdict="passed", value=0.7, reason="good"),
    GateResult(group="model", name="champion", verdict="not_compared", reason=f"none {NASTY}"),
]

MakePages = Callable[[Settings], Pages]


def release_with(
    context: ReleaseContext, folder: Path, unit: str, attempt: int, **more: Any
) -> Manifest:
    """Release a unit with nasty titles and gates, and with files of one's own."""
    what = plan(unit, attempt)
    workdir = folder / f"{unit}-{what.version}"
    workdir.mkdir()
    content = tables(unit, attempt)
    if "titles" in content:
        kind, titles = content["titles"]
        content["titles"] = (kind, {i: f"{NASTY}{title}" for i, title in titles.items()})
    prepared = prepare(content, workdir / "tables")
    manifest = publish(context.registry, what, unit, Built(**more), [prepared], {}, workdir, GATES)
    stage(context, manifest)
    assert activate(context, manifest).outcome == "live"
    return manifest


@pytest.fixture
def live(context: ReleaseContext, tmp_path: Path, models: Path) -> dict[str, Manifest]:
    """All ways of serving but the interest vectors."""
    (tmp_path / "model.pmml").write_text(PMML, encoding="utf-8")
    files = {PMML_FILE: tmp_path / "model.pmml"}
    # Its two inputs are missing, in this request and in every other.
    score = 1 / (1 + math.exp(-(0.5 - 2.0)))
    golden = [ScoredRequest(inputs=raw_row(user_id="1", item_id="2"), score=score)]
    release_with(context, tmp_path, "recs", 1, metrics={}, params={})
    return {
        "recs": release_with(context, tmp_path, "recs", 2, metrics={}, params={}),
        "embeddings": release(context, tmp_path, "embeddings", 1, models),
        "ctr_pmml": release_with(
            context, tmp_path, "ctr_pmml", 1, metrics={}, params={}, files=files, golden=golden
        ),
        "embedding_mlp": release(context, tmp_path, "embedding_mlp", 1, models),
    }


def test_the_releases(
    context: ReleaseContext, live: dict[str, Manifest], pages_for: MakePages
) -> None:
    client = pages_for(context.settings).client
    # Only of recs is there a version before.
    assert client.get("/releases").text.count('href="/airflow/dags/rollback"') == 1
    roll_back(context, "recs", None, f"wrong prices {NASTY}", RUNNER)
    answer = client.get("/releases")
    assert answer.status_code == 200
    text = answer.text
    assert f'<b class="version">{live["embedding_mlp"].version}</b>' in text
    # Rolled back: the first version is live, and the reason stands in the history.
    assert f'<b class="version">{live["recs"].version - 1}</b>' in text
    assert "rollback" in text
    replica = context.settings.tf_serving[0].grpc
    assert f'{replica} <span class="good">AVAILABLE</span>' in text
    assert re.search(r"\d passed, 1 not compared</summary>", text)
    assert "model gate champion: not compared: none &lt;script&gt;" in text
    # Enabled and not live.
    assert 'id="interest_ranker"' in text
    # Neither.
    assert 'id="dien"' not in text
    assert f'href="/airflow/ferry/reports/{live["recs"].version - 1}"' in text
    assert_harmless(text)


def test_one_way_that_is_not_live_leaves_the_others_alone(
    context: ReleaseContext, live: dict[str, Manifest], pages_for: MakePages
) -> None:
    text = pages_for(context.settings).client.get("/try", params={"user": "7"}).text
    assert_harmless(text)
    ways = sections(text)
    assert list(ways) == [
        "precomputed lists",
        "embeddings",
        "interest vectors + light model",
        "PMML",
        "TensorFlow Serving",
    ]
    for title, unit in (
        ("precomputed lists", "recs"),
        ("embeddings", "embeddings"),
        ("PMML", "ctr_pmml"),
        ("TensorFlow Serving", "embedding_mlp"),
    ):
        assert f"{unit} {live[unit].version}, <span" in ways[title]
        assert re.search(r'class="ms">\d+\.\d ms', ways[title]), ways[title]
        assert ways[title].count("<li>") == 3
        assert "&lt;script&gt;alert" in ways[title]
    # The saved model's weight times the user's mean rating.
    assert ", 0.7000</span>" in ways["TensorFlow Serving"]
    assert "nothing of interest_ranker is live" in ways["interest vectors + light model"]


def test_items_of_ones_own_and_a_user_that_nobody_knows(
    context: ReleaseContext, live: dict[str, Manifest], pages_for: MakePages
) -> None:
    client = pages_for(context.settings).client
    text = client.get("/try", params={"user": NASTY, "items": f"4, 5 {NASTY},"}).text
    assert_harmless(text)
    ways = sections(text)
    assert "these are the most popular items" in ways["precomputed lists"]
    assert "has no vector" in ways["embeddings"]
    for title in ("embeddings", "PMML", "TensorFlow Serving"):
        assert ways[title].count("<li>") == 3, ways[title]
    assert f'value="4 5 {escaped(NASTY)}"' in text


def test_a_scorer_that_died_answers_again_after_the_next_question(
    context: ReleaseContext, live: dict[str, Manifest], pages_for: MakePages
) -> None:
    # The Java process is shared by all of this process; in the API server the pages have their own.
    context.client.scoring.close()
    client = pages_for(context.settings).client
    ask = {"user": "7"}
    assert "ms</span>" in sections(client.get("/try", params=ask).text)["PMML"]
    (java,) = [
        child for child in psutil.Process().children() if "pypmml" in " ".join(child.cmdline())
    ]
    java.kill()
    java.wait(10)
    broken = sections(client.get("/try", params=ask).text)
    assert "gives no scores" in broken["PMML"]
    assert "ms</span>" in broken["TensorFlow Serving"]
    assert "ms</span>" in sections(client.get("/try", params=ask).text)["PMML"]


def test_many_at_once(
    context: ReleaseContext, live: dict[str, Manifest], pages_for: MakePages
) -> None:
    client = pages_for(context.settings).client
    texts: list[str] = []

    def ask() -> None:
        texts.append(client.get("/try", params={"user": "7"}).text)
        texts.append(client.get("/releases").text)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum('class="ms"' in text for text in texts) == 6
    assert sum(text.count('class="ms"') for text in texts) == 6 * 4
    assert sum(str(live["embeddings"].version) in text for text in texts) == 12


def test_nothing_is_live(tables_only: ReleaseContext, pages_for: MakePages) -> None:
    client = pages_for(tables_only.settings).client
    text = client.get("/releases").text
    assert "<dt>live</dt><dd>nothing</dd>" in text
    assert "Roll back" not in text
    ways = sections(client.get("/try", params={"user": "7"}).text)
    assert "nothing of recs is live" in ways["precomputed lists"]
    assert ways["PMML"].strip().endswith('<p class="bad">nothing to rank: give items</p>')
    assert "precomputed" not in client.get("/try").text


def test_what_was_retired_and_what_is_from_another_lake(
    tables_only: ReleaseContext, tmp_path: Path, models: Path, pages_for: MakePages
) -> None:
    release(tables_only, tmp_path, "recs", 1, models)
    embeddings = release(tables_only, tmp_path, "embeddings", 1, models)
    retire(tables_only, "recs", f"wrong prices {NASTY}")
    demo = {"data": {"training": {"lake_id": "demo"}}}
    tables_only.registry.seal(embeddings.model_copy(update=demo))
    text = pages_for(tables_only.settings).client.get("/releases").text
    assert re.search(r'<dd class="odd">\d+ was retired by a test at .* UTC: wrong prices', text)
    assert '<dd class="odd">from another lake: it was trained on data that' in text
    assert "&#39;ferry retire embeddings --reason …&#39; takes it offline" in text
    # The way back is the form of the rollback.
    assert text.count('href="/airflow/dags/rollback"') == 1
    assert "<td>retirement</td><td>nothing</td><td>a test</td>" in text
    assert_harmless(text)


def test_a_broken_document_of_one_unit_hides_no_other(
    tables_only: ReleaseContext, tmp_path: Path, models: Path, pages_for: MakePages
) -> None:
    recs = release(tables_only, tmp_path, "recs", 1, models)
    release(tables_only, tmp_path, "embeddings", 1, models)
    tables_only.registry.objects.put_text("releases/embeddings/active.json", '{"unit": 1}')
    text = pages_for(tables_only.settings).client.get("/releases").text
    assert str(recs.version) in text
    assert "releases/embeddings/active.json: the document is corrupt" in text


@pytest.mark.parametrize("path", ["/releases", "/try?user=7"])
def test_redis_is_down(tables_only: ReleaseContext, pages_for: MakePages, path: str) -> None:
    (port,) = free_ports(1)
    down = tables_only.settings.model_copy(
        update={"redis_url": type(tables_only.settings.redis_url)(f"redis://127.0.0.1:{port}/0")}
    )
    pages = pages_for(down)
    answer = pages.client.get(path)
    assert answer.status_code == 503
    assert f"Redis at 127.0.0.1:{port}: " in answer.text
    assert "Traceback" not in answer.text
    # The page works again once the settings name one that answers.
    pages.settings = tables_only.settings
    assert pages.client.get(path).status_code == 200


def test_a_report_is_served_and_can_run_nothing(
    tables_only: ReleaseContext, pages_for: MakePages
) -> None:
    run_id = "manual__2026-03-01T00:00:00+00:00"
    tables_only.registry.put_report(202603010001, run_id, "<h1>The report</h1>")
    client = pages_for(tables_only.settings).client
    for path, params in (
        ("/reports/202603010001", {}),
        ("/runs/report", {"run_id": run_id}),
        ("/runs/report", {"run_id": run_id, "dag_id": "daily_retraining"}),
    ):
        answer = client.get(path, params=params)
        assert (answer.status_code, answer.text) == (200, "<h1>The report</h1>")
        assert answer.headers["Content-Security-Policy"] == REPORT_POLICY
        assert "script-src" not in REPORT_POLICY


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/reports/7", "There is no report of version 7."),
        ("/runs/report?run_id=../../x%3Cscript%3E", "Run ../../x&lt;script&gt; has no report yet"),
        ("/runs/report?run_id=x&dag_id=rollback", "those of rollback have none"),
    ],
)
def test_no_report(tables_only: ReleaseContext, pages_for: MakePages, path: str, says: str) -> None:
    answer = pages_for(tables_only.settings).client.get(path)
    assert answer.status_code == 404
    assert says in answer.text
    assert 'href="/airflow/dags/daily_retraining/runs"' in answer.text
    assert_harmless(answer.text)


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/reports/latest", 422, "version: "),
        ("/reports/-1", 422, "version: "),
        ("/runs/report", 422, "run_id: Field required"),
        ("/try?user=" + "x" * 201, 422, "user: "),
        ("/try?user=1&items=" + ",".join(map(str, range(51))), 422, "51 items are too many"),
        ("/nothing", 404, "Not Found"),
        ("/docs", 404, "Not Found"),
        ("/openapi.json", 404, "Not Found"),
    ],
)
def test_wrong_requests(
    tables_only: ReleaseContext, pages_for: MakePages, path: str, status: int, says: str
) -> None:
    answer = pages_for(tables_only.settings).client.get(path)
    assert (answer.status_code, says in answer.text) == (status, True)
    assert_harmless(answer.text)


def test_every_page_is_guarded(tables_only: ReleaseContext, pages_for: MakePages) -> None:
    pages = pages_for(tables_only.settings)
    pages.refuses = 401
    for path in ("/releases", "/try?user=7", "/reports/x", "/reports/7", "/runs/report?run_id=x"):
        answer = pages.client.get(path)
        assert answer.status_code == 401
        assert "Not authenticated" in answer.text
        assert 'href="/airflow/"' in answer.text


def test_what_pages_may_do(tables_only: ReleaseContext, pages_for: MakePages) -> None:
    client = pages_for(tables_only.settings).client
    for path in ("/releases", "/try", "/reports/7", "/nothing"):
        headers = client.get(path).headers
        assert headers["Content-Security-Policy"] == PAGE_POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'; script-src 'sha256-" in PAGE_POLICY
    assert "frame-ancestors 'self'" in PAGE_POLICY


def escaped(text: str) -> str:
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
    )


def assert_harmless(text: str) -> None:
    """One script, which is ours, and nothing from another place."""
    scripts = re.findall(r"<script[^>]*>", text)
    assert scripts == ["<script>"]
    assert "alert(&#34;" in text or "alert" not in text
    assert not re.search(r"(src|href|action)=[\"']?(https?:)?//", text)


def sections(text: str) -> dict[str, str]:
    """Return what stands in the part of each way of serving."""
    parts = re.findall(r'<section class="unit">\s*<h2>(.*?)</h2>(.*?)</section>', text, re.DOTALL)
    return dict(parts)
