"""Rebuilds Redis and the model servers from object storage."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import Param, dag, get_current_context, task
from ferry_notifiers import FerryNotifier
from ferry_tasks import ferry_task

from pipelines.models_config import UNITS

DOC = """
### Restore

For a Redis that was lost, a model server's disk that was emptied, or a new replica: brings back
what ought to be live, and what a rollback would go to, from object storage and without training.
Then verifies like a release. What is whole is left alone.

* **unit**: what to restore. Empty: everything that was ever live.
"""


@task(execution_timeout=timedelta(hours=2), on_failure_callback=FerryNotifier())
def restore_online() -> dict[str, list[str]]:
    """Restore one unit, or all."""
    context = get_current_context()
    with ferry_task() as settings:
        from pipelines import operations

        owner = f"restore ({context['dag_run'].run_id})"
        return operations.restore_units(settings, context["params"]["unit"], owner)


@dag(
    dag_id="restore",
    doc_md=DOC,
    schedule=None,
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    # Who needs it has no time to find out that it is paused; it has no schedule to be paused.
    is_paused_upon_creation=False,
    default_args={
        "owner": "ferry",
        "retries": 1,
        "retry_delay": timedelta(seconds=20),
        "priority_weight": 10,
    },
    params={
        "unit": Param(
            None,
            type=["null", "string"],
            enum=[None, *UNITS],
            description="What to restore. Empty: everything that was ever live.",
        ),
    },
    tags=["ferry", "release"],
)
def restore() -> None:
    """Wire the run."""
    restore_online()


restore()
