"""Looks after what is live, every hour."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, dag, get_current_context, task
from ferry_notifiers import FerryNotifier, tell
from ferry_tasks import ferry_task

DOC = """
### Online check

Every hour, for every unit that was ever released:

1. brings Redis and every model server to the desired state in object storage (`ferry reconcile`):
   a switch that was left half-way is settled, lost tables are written again, models are loaded;
2. compares golden answers with the trainer's, at the pointer and as a client reads;
3. looks at the age of the data that what is live was built from.

Red, and told to those whom `operations.notify` names: something could not be repaired, an answer
differs, or the data are older than `operations.max_live_age_days` allows. What was repaired is told
too: somebody should know that it was lost.
"""


@task(execution_timeout=timedelta(minutes=30), on_failure_callback=FerryNotifier())
def check() -> list[dict[str, Any]]:
    """Check all units."""
    context = get_current_context()
    dag_run = context["dag_run"]
    with ferry_task() as settings:
        from pipelines import operations

        checks = operations.online_check(settings, owner=f"online check ({dag_run.run_id})")
        if repaired := [line for checked in checks for line in checked.repaired]:
            tell("repaired online", "\n".join(repaired), dag_run.dag_id, dag_run.run_id)
        operations.require_well(checks)
    return [checked.model_dump() for checked in checks]


@dag(
    dag_id="online_check",
    doc_md=DOC,
    schedule=CronDataIntervalTimetable("23 * * * *", timezone="UTC"),
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={
        "owner": "ferry",
        "retries": 1,
        "retry_delay": timedelta(minutes=2),
        "priority_weight": 10,
    },
    tags=["ferry", "release"],
)
def online_check() -> None:
    """Wire the run."""
    check()


online_check()
