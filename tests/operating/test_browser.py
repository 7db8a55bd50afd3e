"""What people do in the Airflow UI, in a real browser: run by the form, look, try, roll back.

Screenshots are left in the folder that ``FERRY_TEST_ARTEFACTS`` names.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest
from playwright.sync_api import FrameLocator, Page, expect, sync_playwright

from local.home import load_home
from local.stack import Stack
from tests.installation import RUN_SECONDS, Dags, Installation
from tests.operating.operated import DAG, LAST, TRAINING_DAYS, Approved, live_version

PATHS = ("releases", "try?user=10", "reports/202603040001", "runs/report?run_id=x", "reports/x")

# Read before an installation takes the environment over.
_ARTEFACTS = os.environ.get("FERRY_TEST_ARTEFACTS")
#: A page of Airflow's UI on a busy machine.
_PAGE_SECONDS = 90
pytestmark = pytest.mark.timeout(3 * RUN_SECONDS)


@pytest.fixture(scope="module")
def dags(ferry: Installation, approved: Approved) -> Iterator[Dags]:
    """Airflow, with something live."""
    assert approved.run.state == "success", approved
    with ferry.airflow() as dags:
        yield dags


@dataclass
class Browser:
    """A page of Airflow's UI, somebody logged in, and what went wrong in it."""

    page: Page
    base_url: str
    artefacts: Path
    hosts: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("console", lambda message: self._listen(message.text))

    def _listen(self, text: str) -> None:
        if "Content Security Policy" in text:
            self.violations.append(text)

    def open(self, path: str) -> None:
        self.page.goto(f"{self.base_url}{path}")

    def frame(self, title: str) -> FrameLocator:
        return self.page.frame_locator(f'iframe[title="{title}"]')

    def screenshot(self, name: str) -> None:
        self.page.screenshot(path=self.artefacts / f"{name}.png")


@pytest.fixture(scope="module")
def browser(dags: Dags, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser in which the login form has been filled in."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("there is no 'chromium' on PATH: install it, 'apt-get install chromium'")
    artefacts = Path(_ARTEFACTS) if _ARTEFACTS else tmp_path_factory.mktemp("screenshots")
    artefacts.mkdir(parents=True, exist_ok=True)
    home = load_home()
    password = Stack(home, lambda _: None).secrets.airflow_password
    # Chromium refuses its own sandbox to root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=_PAGE_SECONDS * 1000)
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = chrome.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(_PAGE_SECONDS * 1000)
        browser = Browser(page, f"http://{home.address('airflow')}", artefacts)
        try:
            browser.open("/")
            page.fill("input[name=username]", "admin")
            page.fill("input[name=password]", password)
            browser.screenshot("1-login")
            page.keyboard.press("Enter")
            page.wait_for_url(lambda url: "/login" not in url)
            yield browser
        finally:
            browser.screenshot("last")
            chrome.close()


@dataclass(frozen=True)
class FormRun:
    """A run that was started by the form and went live: the path of its page, and its version."""

    path: str
    version: int
    before: int


@pytest.fixture(scope="module")
def form_run(browser: Browser, dags: Dags, ferry: Installation) -> FormRun:
    before = live_version(ferry)
    page = browser.page
    browser.open("/dags/daily_retraining")
    page.get_by_test_id("trigger-dag-button").click()
    form = page.get_by_role("dialog")
    form.locator("#element_run_date").fill(LAST.isoformat())
    form.locator("input[name=element_training_days]").fill(str(TRAINING_DAYS))
    form.get_by_role("combobox").last.click()
    page.get_by_role("option", name="always").click()
    browser.screenshot("2-form")
    form.get_by_test_id("trigger-dag-submit").click()
    expect(form).to_be_hidden()
    (run_id,) = dags.api.unfinished_runs(DAG)
    run = dags.wait(DAG, run_id)
    assert run.state == "success", run.logs
    version = dags.version(DAG, run_id)
    assert live_version(ferry) == version
    return FormRun(f"/dags/{DAG}/runs/{quote(run_id)}", version, before)


@pytest.mark.parametrize("path", PATHS)
def test_without_a_login_no_page_is_shown(dags: Dags, path: str) -> None:
    url = f"http://{load_home().address('airflow')}/ferry/{path}"
    with httpx.Client(trust_env=False, timeout=60) as client:
        nobody = client.get(url)
        assert nobody.status_code == 401
        assert "Not authenticated" in nobody.text
        assert "recs" not in nobody.text
        assert client.get(url, cookies={"_token": "forged"}).status_code in (401, 403)
        forged = {"Authorization": "Bearer forged"}
        assert client.get(url, headers=forged).status_code in (401, 403)


def test_the_report_is_on_the_page_of_the_run(browser: Browser, form_run: FormRun) -> None:
    browser.open(form_run.path)
    browser.page.get_by_role("link", name="Report", exact=True).click()
    report = browser.frame("Report").locator("body")
    expect(report).to_contain_text(str(form_run.version))
    expect(report).to_contain_text("ndcg_at_10")
    browser.screenshot("3-report")


def test_the_releases(browser: Browser, form_run: FormRun) -> None:
    browser.open("/")
    browser.page.get_by_role("link", name="Releases", exact=True).click()
    recs = browser.frame("Releases").locator("#recs")
    expect(recs.locator(".version")).to_have_text(str(form_run.version))
    expect(recs).to_contain_text(f"before{form_run.before}")
    recs.get_by_text("The last moves").click()
    expect(recs.locator("tbody tr").first).to_contain_text(str(form_run.version))
    browser.screenshot("4-releases")


def test_a_user_is_tried(browser: Browser, form_run: FormRun) -> None:
    browser.open("/")
    browser.page.get_by_role("link", name="Try it", exact=True).click()
    frame = browser.frame("Try it")
    frame.get_by_label("User").fill("10")
    frame.get_by_role("button", name="Ask").click()
    lists = frame.locator("section").first
    expect(lists).to_contain_text(f"recs {form_run.version}")
    expect(lists.locator("li").first).to_contain_text("or the <b>Movie</b>")
    expect(lists.locator(".ms")).to_have_text(re.compile(r"^\d+\.\d ms$"))
    for other in ("embeddings", "ctr_pmml", "interest_ranker"):
        expect(frame.locator("body")).to_contain_text(f"nothing of {other} is live")
    browser.screenshot("5-try")
    # What was asked is in the address, to be passed on.
    assert "user=10" in browser.page.url


def test_the_rollback_form_is_one_click_away(browser: Browser, form_run: FormRun) -> None:
    browser.open("/plugin/ferry-releases")
    browser.frame("Releases").get_by_role("link", name="Roll back").click()
    form = browser.page.get_by_role("dialog")
    expect(form).to_contain_text("rollback")
    expect(form.locator("#element_reason")).to_be_visible()
    # Not without a reason.
    expect(form.get_by_test_id("trigger-dag-submit")).to_be_disabled()
    browser.screenshot("6-rollback")
    assert browser.page.url == f"{browser.base_url}/dags/rollback"
    # In this window, not in a second Airflow inside the frame.
    assert browser.page.locator("iframe").count() == 0


def test_nothing_came_from_elsewhere(browser: Browser, form_run: FormRun) -> None:
    assert browser.violations == []
    assert browser.hosts - {urlsplit(browser.base_url).netloc} <= {""}
