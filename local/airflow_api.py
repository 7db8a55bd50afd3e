"""A thin client of Airflow's REST API: what `make run` and `make up` ask of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import BaseModel, ConfigDict
from tenacity import Retrying, retry_if_exception_type, wait_fixed

from pipelines.errors import ConfigError, ServiceError
from pipelines.patience import Deadline, patient

#: SQLite can be busy for a moment, and the API server with it.
_PATIENCE_SECONDS = 60.0
_ANSWER_SECONDS = 10.0
_DAG_SECONDS = 90.0
_UNFINISHED = ("queued", "running")


class TaskInstance(BaseModel):
    """One task of a run, as Airflow reports it."""

    model_config = ConfigDict(frozen=True)

    task_id: str
    state: str | None
    try_number: int
    start_date: datetime | None
    duration: float | None


class NextRun(BaseModel):
    """The run that the schedule starts next."""

    model_config = ConfigDict(frozen=True)

    run_after: datetime
    interval_start: datetime


class _BusyError(Exception):
    """The server answered that it can't answer now."""


class AirflowApi:
    """Logged in as `user`; use it as a context manager."""

    def __init__(self, base_url: str, user: str, password: str) -> None:
        self._client = httpx.Client(base_url=base_url, trust_env=False)
        answer = self.send("POST", "/auth/token", {"username": user, "password": password})
        self._client.headers["Authorization"] = f"Bearer {answer['access_token']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def wait_for_dag(self, dag_id: str, since: datetime, is_alive: Callable[[], bool]) -> None:
        """Wait until the DAG's file has been read after `since`.

        Raises:
            ConfigError: the file has an error, or there is no such DAG.
        """
        deadline = Deadline(_DAG_SECONDS)
        while not deadline.is_over and is_alive():
            dag = self.send("GET", f"/api/v2/dags/{dag_id}", missing_ok=True)
            parsed = dag and dag["last_parsed_time"]
            if parsed and datetime.fromisoformat(parsed) >= since and not dag["is_stale"]:
                if dag["has_import_errors"]:
                    break
                return
            if self._import_errors():
                break
            time.sleep(0.3)
        errors = self._import_errors()
        if errors:
            raise ConfigError(f"Airflow can't read a DAG file:\n{errors}")
        raise ServiceError(f"Airflow did not find the DAG {dag_id} within {deadline.waited:.0f}s")

    def ask_to_parse(self, dag_id: str) -> None:
        """Have the DAG's file read now and not when its turn comes."""
        dag = self.send("GET", f"/api/v2/dags/{dag_id}", missing_ok=True)
        if dag:
            # 409: somebody has asked already.
            self.send("PUT", f"/api/v2/parseDagFile/{dag['file_token']}", conflict_ok=True)

    def set_paused(self, dag_id: str, paused: bool) -> None:
        """Pause the DAG, or have its schedule and its runs go on."""
        self.send("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": paused})

    def is_paused(self, dag_id: str) -> bool:
        """Return whether the DAG is paused; one that Airflow does not know counts as paused."""
        dag = self.send("GET", f"/api/v2/dags/{dag_id}", missing_ok=True)
        return dag is None or bool(dag["is_paused"])

    def next_run(self, dag_id: str) -> NextRun | None:
        """Return the run that the schedule starts next; None if it starts none."""
        dag = self.send("GET", f"/api/v2/dags/{dag_id}")
        run_after, start = dag["next_dagrun_run_after"], dag["next_dagrun_data_interval_start"]
        if run_after is None or start is None:
            return None
        return NextRun(run_after=run_after, interval_start=start)

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """Start the run `run_id`; asking again for the same id does no harm."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        self.send("POST", f"/api/v2/dags/{dag_id}/dagRuns", body, conflict_ok=True)

    def unfinished_runs(self, dag_id: str) -> list[str]:
        """Return the ids of the runs that are queued or running."""
        answer = self.send(
            "GET", f"/api/v2/dags/{dag_id}/dagRuns?" + "&".join(f"state={s}" for s in _UNFINISHED)
        )
        return [run["dag_run_id"] for run in answer["dag_runs"]]

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return queued, running, success or failed."""
        return str(self.send("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def end_run(self, dag_id: str, run_id: str) -> None:
        """End a run as failed; Airflow stops its running tasks."""
        self.send("PATCH", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}", {"state": "failed"})

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Return all tasks of a run."""
        answer = self.send("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances")
        return [TaskInstance.model_validate(task) for task in answer["task_instances"]]

    def task_order(self, dag_id: str) -> list[str]:
        """Return the task ids of a DAG, upstream before downstream."""
        answer = self.send("GET", f"/api/v2/dags/{dag_id}/tasks")
        downstream = {t["task_id"]: t["downstream_task_ids"] for t in answer["tasks"]}
        order: list[str] = []

        def visit(task_id: str) -> None:
            if task_id not in order:
                for following in sorted(downstream[task_id], reverse=True):
                    visit(following)
                order.append(task_id)

        for task_id in sorted(downstream, reverse=True):
            visit(task_id)
        return order[::-1]

    def returned(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what a task returned, or None."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        entry = self.send("GET", f"{path}/xcomEntries/return_value", missing_ok=True)
        return entry and entry["value"]

    def _import_errors(self) -> str:
        answer = self.send("GET", "/api/v2/importErrors")
        return "\n".join(f"{e['filename']}:\n{e['stack_trace']}" for e in answer["import_errors"])

    def send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        missing_ok: bool = False,
        conflict_ok: bool = False,
    ) -> Any:
        """Send a request, again if need be; return its JSON (None for what may be missing)."""
        deadline = Deadline(_PATIENCE_SECONDS)
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type((httpx.TransportError, _BusyError)),
                wait=wait_fixed(0.5),
                stop=lambda _: deadline.is_over,
                reraise=True,
            ):
                with attempt:
                    answer = self._client.request(
                        method, path, json=body, timeout=patient(_ANSWER_SECONDS)
                    )
                    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                        raise _BusyError(answer.text)
        except (httpx.TransportError, _BusyError) as error:
            raise ServiceError(
                f"Airflow at {self._client.base_url} has not answered for "
                f"{deadline.waited:.0f}s: {error}"
            ) from error
        if answer.is_success:
            return answer.json()
        tolerated = {httpx.codes.NOT_FOUND: missing_ok, httpx.codes.CONFLICT: conflict_ok}
        if tolerated.get(httpx.codes(answer.status_code)):
            return None
        path = path.partition("?")[0]
        raise ServiceError(f"Airflow: {method} {path}: {answer.status_code} {answer.text[:500]}")
