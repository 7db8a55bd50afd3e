"""Ferry's part of Airflow: the timetable of the daily run, and in the UI the pages Releases and Try
it and the report of a run.

Every process of Airflow loads this file, tasks included, so it imports next to nothing; the pages
themselves (`ferry_ui`) are made in the API server when the first one is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from pipelines.airflow.timetable import DataDayTimetable

_App = Callable[..., Awaitable[None]]
_URL_PREFIX = "/ferry"


class FerryPages:
    """The pages as an ASGI application that is made by its first request."""

    def __init__(self) -> None:
        self._app: _App | None = None
        self._lock = asyncio.Lock()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if self._app is None:
            async with self._lock:
                if self._app is None:
                    # Seconds of importing, which other requests must not wait for.
                    self._app = await asyncio.to_thread(_make_pages)
        await self._app(scope, receive, send)


def _make_pages() -> _App:
    from ferry_ui.airflow_side import make_pages

    return make_pages()


class FerryPlugin(AirflowPlugin):
    """What Airflow's plugin manager looks for."""

    name = "ferry"
    # Airflow takes no other timetables out of its database than those that are named here.
    timetables = [DataDayTimetable]  # noqa: RUF012
    fastapi_apps = [{"app": FerryPages(), "url_prefix": _URL_PREFIX, "name": "Ferry"}]  # noqa: RUF012
    # Without a slash in front: below whatever path Airflow itself is served under.
    external_views = [  # noqa: RUF012
        {
            "name": "Releases",
            "href": "ferry/releases",
            "destination": "nav",
            "url_route": "ferry-releases",
            "nav_top_level": True,
        },
        {
            "name": "Try it",
            "href": "ferry/try",
            "destination": "nav",
            "url_route": "ferry-try",
            "nav_top_level": True,
        },
        {
            "name": "Report",
            "href": "ferry/runs/report?dag_id={DAG_ID}&run_id={RUN_ID}",
            "destination": "dag_run",
            "url_route": "ferry-report",
        },
    ]
