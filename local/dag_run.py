"""One run of the daily DAG under the scheduler: started, followed, and told about."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

from local.airflow_api import AirflowApi, TaskInstance
from local.run_view import NOT_RUN, RunView, TaskRow
from local.task_log import error_of, log_file, progress_of, skip_reason_of
from pipelines.errors import ServiceError

DAG_ID = "daily_retraining"
_POLL_SECONDS = 0.7


class DagRun:
    """The run of `run_date`; `start` it, then `follow` it.

    With `partial_day` the run date may still be going on.
    """

    def __init__(
        self, api: AirflowApi, airflow_home: Path, run_date: date, *, partial_day: bool = False
    ) -> None:
        self._api = api
        self._airflow_home = airflow_home
        self._run_date = run_date
        self._partial_day = partial_day
        self._final_notes: dict[tuple[str, str | None, int], str] = {}
        self.run_id = f"manual__{datetime.now(UTC).isoformat()}"

    def start(self) -> None:
        """Trigger the run."""
        self._order = self._api.task_order(DAG_ID)
        self._api.set_paused(DAG_ID, False)
        conf = {"run_date": self._run_date.isoformat(), "partial_day": self._partial_day}
        self._api.trigger(DAG_ID, self.run_id, conf)

    def describe_date(self) -> str:
        """Return the run date in words."""
        if self._partial_day:
            return f"{self._run_date}, also if it has not ended"
        return str(self._run_date)

    def follow(self, view: RunView, is_alive: Callable[[], bool]) -> str:
        """Show the run until it ends; return its final state, success or failed.

        Raises:
            ServiceError: Airflow ended while the run was going on.
        """
        with view:
            while True:
                # The state first: when it is final, the rows read after it are final as well.
                state = self._api.run_state(DAG_ID, self.run_id)
                view.show([self._row(task) for task in self.tasks()])
                if state in ("success", "failed"):
                    return state
                if not is_alive():
                    raise ServiceError("Airflow ended while the run was going on")
                time.sleep(_POLL_SECONDS)

    def tasks(self) -> list[TaskInstance]:
        """Return the run's tasks, upstream before downstream."""
        tasks = self._api.task_instances(DAG_ID, self.run_id)
        position = {task_id: n for n, task_id in enumerate(self._order)}
        return sorted(tasks, key=lambda task: position.get(task.task_id, len(position)))

    def log_of(self, task: TaskInstance) -> Path:
        """Return the log of a task's latest attempt."""
        return log_file(
            self._airflow_home, DAG_ID, self.run_id, task.task_id, max(1, task.try_number)
        )

    def version(self) -> int | None:
        """Return the version that the run builds, once it has been planned."""
        plan = self._api.returned(DAG_ID, self.run_id, "plan")
        return int(plan["version"]) if plan else None

    def _row(self, task: TaskInstance) -> TaskRow:
        key = (task.task_id, task.state, task.try_number)
        if key in self._final_notes:
            note = self._final_notes[key]
        else:
            note = self._note(task)
            # A task that has ended writes no more; its log need not be read at every poll.
            if task.state not in ("running", "queued", None):
                self._final_notes[key] = note
        seconds = None if task.state in NOT_RUN else task.duration
        if task.state == "running" and task.start_date:
            seconds = (datetime.now(UTC) - task.start_date).total_seconds()
        return TaskRow(task.task_id, task.state or "waiting", seconds, note)

    def _note(self, task: TaskInstance) -> str:
        if task.state in ("running", "success"):
            return progress_of(self.log_of(task)) or ""
        if task.state == "failed":
            return error_of(self.log_of(task))
        if task.state == "skipped":
            return skip_reason_of(self.log_of(task)) or ""
        if task.state == "up_for_retry":
            return f"will try again: {error_of(self.log_of(task))}"
        return ""
