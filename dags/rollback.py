"""Makes an earlier version of a unit live again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import AssetAlias, Param, dag, get_current_context, task
from ferry_notifiers import FerryNotifier
from ferry_tasks import ferry_task, release_asset

from pipelines.models_config import UNITS, Unit

DOC = """
### Rollback

Makes an earlier version of one unit live: its pointer, labels, vectors and model together. Below
two seconds where that version is still online, else it is staged again from object storage first.

The version that was live is **withdrawn**: neither a retry of its run nor the next reconciliation
makes it live again. The next run's newer version goes live as usual; pause `daily_retraining` if
that must not happen.

* **unit**: what to roll back. * **version**: empty means the one that was live before.
* **reason**: kept in the unit's history (`ferry release show UNIT`).
"""


#: Which unit it is, and so which asset goes live, is known only in the run.
_ROLLED_BACK = AssetAlias("ferry_rollback")


@task(
    execution_timeout=timedelta(minutes=30),
    outlets=[_ROLLED_BACK],
    on_failure_callback=FerryNotifier(),
)
def roll_back() -> dict[str, Any]:
    """Roll one unit back."""
    context = get_current_context()
    params, dag_run = context["params"], context["dag_run"]
    unit: Unit = params["unit"]
    with ferry_task() as settings:
        from pipelines import operations

        who = getattr(dag_run, "triggering_user_name", None) or "Airflow"
        done = operations.rollback_unit(
            settings,
            unit,
            params["version"],
            params["reason"],
            owner=f"{who} ({dag_run.run_id})",
        )
        facts = operations.release_facts(settings, unit, done.version)
    context["outlet_events"][_ROLLED_BACK].add(release_asset(unit), extra=facts)
    return done.model_dump(mode="json")


@dag(
    dag_id="rollback",
    doc_md=DOC,
    schedule=None,
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=4,
    # Else a rollback would wait until somebody unpauses it; it has no schedule to be paused.
    is_paused_upon_creation=False,
    default_args={
        "owner": "ferry",
        "retries": 1,
        "retry_delay": timedelta(seconds=5),
        "priority_weight": 100,
    },
    params={
        "unit": Param(UNITS[0], type="string", enum=list(UNITS), description="What to roll back."),
        "version": Param(
            None,
            type=["null", "integer"],
            description="The version to make live. Empty: the one that was live before.",
        ),
        "reason": Param(
            "",
            type="string",
            minLength=3,
            # Not only spaces.
            pattern=r"^.*\S.*$",
            description="Why; kept in the history.",
        ),
    },
    tags=["ferry", "release"],
)
def rollback() -> None:
    """Wire the run."""
    roll_back()


rollback()
