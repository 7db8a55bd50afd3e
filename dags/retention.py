"""Removes versions that nothing needs any more."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, Param, dag, get_current_context, task
from ferry_notifiers import FerryNotifier
from ferry_tasks import ferry_task

from pipelines.models_config import UNITS, Unit

DOC = """
### Retention

Removes old versions of every unit: from Redis, the model servers, their disk and, last, object
storage. The live version, the one before it, the newest ones (`retention` in `pipeline.yaml`) and
whatever is newer than the live version stay. The manifests of removed versions are kept.

**Parameter** `dry_run`: only say what would go (task log and return value).
"""


@task(execution_timeout=timedelta(hours=1), on_failure_callback=FerryNotifier())
def retain(unit: Unit) -> dict[str, Any]:
    """Remove one unit's old versions."""
    params = get_current_context()["params"]
    with ferry_task() as settings:
        from pipelines import operations

        return operations.retire_versions(settings, unit, dry_run=params["dry_run"]).model_dump()


@dag(
    dag_id="retention",
    doc_md=DOC,
    schedule=CronDataIntervalTimetable("0 6 * * *", timezone="UTC"),
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={
        "owner": "ferry",
        "retries": 2,
        "retry_delay": timedelta(minutes=10),
    },
    params={"dry_run": Param(False, type="boolean", description="Only say what would go.")},
    tags=["ferry", "release"],
)
def retention() -> None:
    """Wire the run."""
    for unit in UNITS:
        retain.override(task_id=f"retain_{unit}")(unit)


retention()
