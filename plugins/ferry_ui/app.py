"""The pages as a FastAPI application: who may see them is the caller's business, not optional."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from ferry_ui.services import Services
from pipelines.errors import FerryError, ServiceError
from pipelines.report.frame import PAGE_POLICY, REPORT_POLICY, message_page
from pipelines.report.releases import collect_releases, render_releases
from pipelines.report.try_it import MAX_ITEMS, ask_every_way, render_try

REPORTED_DAG = "daily_retraining"
_RUNS = (f"/dags/{REPORTED_DAG}/runs", "Show the runs")


def make_app(services: Services, guard: Callable[..., Any]) -> FastAPI:
    """Return the pages; the dependency `guard` raises for whoever may not see them."""
    app = FastAPI(
        dependencies=[Depends(guard)],
        # These would answer anybody.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )

    @app.get("/releases")
    def releases(request: Request) -> HTMLResponse:
        units = collect_releases(services.context(), services.config())
        return _page(render_releases(units, _base(request)))

    @app.get("/try")
    def try_it(
        request: Request,
        user: Annotated[str, Query(max_length=200)] = "",
        items: Annotated[str, Query(max_length=2000)] = "",
    ) -> HTMLResponse:
        user, wanted = user.strip(), [item for item in re.split(r"[\s,]+", items) if item]
        if len(wanted) > MAX_ITEMS:
            message = f"{len(wanted)} items are too many: ask for at most {MAX_ITEMS}"
            return _message(request, 422, "Try it", message, ("/ferry/try", "Back"))
        ways = []
        if user:
            with services.scoring() as client:
                ways = ask_every_way(client, user, wanted)
        return _page(render_try(user, wanted, ways, _base(request)))

    @app.get("/reports/{version}")
    def report(request: Request, version: Annotated[int, Path(ge=0)]) -> HTMLResponse:
        return _report(request, services, version)

    @app.get("/runs/report")
    def report_of_run(
        request: Request,
        run_id: Annotated[str, Query(max_length=250)],
        dag_id: Annotated[str, Query(max_length=250)] = REPORTED_DAG,
    ) -> HTMLResponse:
        if dag_id != REPORTED_DAG:
            message = f"Only runs of {REPORTED_DAG} have a report, those of {dag_id} have none."
            return _message(request, 404, "No report", message, _RUNS)
        version = services.context().registry.report_version(run_id)
        if version is None:
            message = f"Run {run_id} has no report yet: its last task writes it."
            return _message(request, 404, "No report yet", message, _RUNS)
        return _report(request, services, version)

    @app.exception_handler(FerryError)
    def explain(request: Request, error: FerryError) -> HTMLResponse:
        status = 503 if isinstance(error, ServiceError) else 500
        return _message(request, status, "This page can't be shown", str(error))

    @app.exception_handler(RequestValidationError)
    def explain_value(request: Request, error: RequestValidationError) -> HTMLResponse:
        first = error.errors()[0]
        message = f"{first['loc'][-1]}: {first['msg']}"
        return _message(request, 422, "A value is wrong", message)

    @app.exception_handler(HTTPException)
    def explain_refusal(request: Request, error: HTTPException) -> HTMLResponse:
        link = ("/", "Log in") if error.status_code == 401 else None
        return _message(request, error.status_code, "This page can't be shown", error.detail, link)

    return app


def _report(request: Request, services: Services, version: int) -> HTMLResponse:
    html = services.context().registry.report(version)
    if html is None:
        message = f"There is no report of version {version}."
        return _message(request, 404, "No report", message, _RUNS)
    return _page(html, policy=REPORT_POLICY)


def _base(request: Request) -> str:
    """Return the path under which Airflow is served, without a slash at its end."""
    return str(request.scope.get("root_path", "")).removesuffix("/ferry").rstrip("/")


def _message(
    request: Request,
    status: int,
    title: str,
    message: str,
    link: tuple[str, str] | None = None,
) -> HTMLResponse:
    return _page(message_page(_base(request), title, message, link), status)


def _page(html: str, status: int = 200, policy: str = PAGE_POLICY) -> HTMLResponse:
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    return HTMLResponse(html, status, headers)
