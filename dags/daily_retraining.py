"""Trains, publishes and releases every unit, by default once a day."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import (
    Param,
    TriggerRule,
    dag,
    get_current_context,
    task,
    task_group,
)
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from ferry_approval import ReleaseApproval
from ferry_notifiers import EndedRunNotifier, FerryNotifier, tell
from ferry_tasks import (
    INGEST_TASK,
    PLAN_TASK,
    FerrySparkOperator,
    configuration,
    ferry_task,
    heavy_slots,
    nothing_to_do,
    release_asset,
    skip_if_unchanged,
    skip_unless_planned,
)

from pipelines.airflow.timetable import DataDayTimetable
from pipelines.errors import ReleaseError
from pipelines.models_config import RANKERS, Unit

DOC = """
### Daily retraining

Builds every unit from all events before the end of the **run date**, by default the last complete
day, and puts it live:

`plan` → `ingest` → `features` → for each unit `build` → `stage` → `approve` → `activate`, then
`report` → `finish`. The report is a page of its own, linked from the run.

| unit | what goes live |
|---|---|
| `recs` | top items of every user, popular and similar items, in Redis |
| `embeddings` | item and user vectors and nearest items, in Redis |
| `interest_ranker` | interest vectors in Redis, and a light SavedModel that reads them |
| `ctr_pmml` | PMML in object storage, its features in Redis |
| `embedding_mlp`, … | a Keras ranker: SavedModel on the model servers, its features in Redis |

The units are those that `pipeline.yaml` enables.

**Nothing is half-published.** A version is immutable once `build` has sealed it; `stage` puts it
beside the live one, where no reader looks; `activate` compares its answers with the trainer's,
moves one pointer, compares again and goes back by itself if they differ. A failed task leaves live
what was live.

**Nothing is trained twice from the same.** A unit whose data, settings and code are those of its
live version is left as it is; the log of its `activate` says so.

**The units do not depend on each other**: if one fails, the others still go live and the run
ends red in `finish`, which names the failed ones and what is live instead.

**On call**

* *A task is red.* Its last log line says what, where and what to do. Network faults were retried
  already; bad data and wrong configuration are not retried.
* *`stage` and `activate` are skipped.* The last line of their log says why: a gate refused the
  version, something newer is live, the version was rolled back, or somebody rejected it. What was
  live is live.
* *`approve` waits.* Somebody asked for it in the form: answer on its page under *Required actions*.
* *Everything after `ingest` is skipped.* A backfill came to a day without data, or nothing is new
  since what is live: the last line of each `activate` says since which version.
* *The run was killed.* Clear the red task. A switch that was half-way is completed or undone by
  `activate`, by the next run, or by `ferry reconcile`.
* *What went live is bad.* The DAG `rollback`, or `ferry rollback UNIT --reason "…"`.
* *After a repair*: clear the failed task with its downstream tasks. The run keeps its version,
  and what was sealed is not built again.
* *What is live now?* `ferry status`.

**Parameters**

* `run_date`: the run sees events before the end of this day. Empty: the day of the run's data
  interval; for a run that was started by hand, the last complete day. A day that is not complete
  is refused.
* `partial_day`: build also a run date that has not ended, from the part of it that has passed. The
  day is marked incomplete, and the next run reads it again.
* `units`: what to build.
* `activate`: `if_newest` leaves alone what is live when the run date is older, as in a backfill;
  `always` lets also an older date go live; `never` builds, judges and records only.
* `approval`: each unit waits for a person between `stage` and `activate`; nobody is asked in a
  backfill. Without an answer in time, `operations.approval_default` decides.
* `training_days`: read only so many days before the end of the run date.
* `train_again`: train also units that nothing is new for.
* `note`: why; it stands in the report.

**A backfill** (`airflow backfill create`, or the UI) builds, judges and records every day from the
first to the last, each from what was known on it. Nothing live changes, unless it is the newest.
Several days may run at the same time: they take turns where they read and write the lake.
"""

_CONFIG = configuration()
_UNITS = _CONFIG.models.enabled_units()
_OPERATIONS = _CONFIG.operations
_CALENDAR = _CONFIG.data.calendar
#: Builds that take longest, the longest last, begin first: none of them goes on alone at the end.
_LONG_BUILDS: tuple[Unit, ...] = ("interest_ranker", "recs", "embeddings", "ctr_pmml")


@task(task_id=PLAN_TASK, execution_timeout=timedelta(minutes=5))
def plan_run() -> dict[str, Any]:
    """Decide the run date and reserve the version."""
    context = get_current_context()
    dag_run = context["dag_run"]
    with ferry_task() as settings:
        from pipelines.run import resolve_run_date, run_type_of
        from pipelines.steps import plan as planning

        params = context["params"]
        run_date = resolve_run_date(
            params["run_date"],
            context.get("data_interval_start"),
            dag_run.run_after,
            _CALENDAR,
        )
        plan = planning.plan_run(
            settings,
            run_date,
            run_type_of(dag_run.run_type),
            dag_run.run_id,
            params["activate"],
            units=params["units"],
            training_days=params["training_days"],
            partial_day=params["partial_day"],
            note=params["note"] or "",
            train_again=params["train_again"],
            clear_number=dag_run.clear_number or 0,
        )
    return plan.model_dump(mode="json")


@task(execution_timeout=timedelta(hours=4))
def build_keras(unit: Unit, plan: dict[str, Any]) -> None:
    """Build a unit that needs no Spark."""
    skip_unless_planned(plan, unit)
    skip_if_unchanged(plan, unit)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with ferry_task() as settings:
        from pipelines.models import registry
        from pipelines.run import RunPlan
        from pipelines.steps import units

        registry.load(unit)
        units.build_step(None, settings, RunPlan.model_validate(plan), unit)


# Runs also where stage was skipped, to be skipped with the reason.
@task(trigger_rule=TriggerRule.NONE_FAILED, execution_timeout=timedelta(minutes=15))
def activate(unit: Unit, plan: dict[str, Any]) -> dict[str, Any]:
    """Make a unit's version live; skipped, with the reason, if it may not be."""
    context = get_current_context()
    skip_unless_planned(plan, unit)
    if reason := nothing_to_do(context):
        raise AirflowSkipException(reason)
    skip_if_unchanged(plan, unit)
    with ferry_task() as settings:
        from pipelines.run import RunPlan
        from pipelines.steps import units

        activation = units.activate_step(settings, RunPlan.model_validate(plan), unit)
    if activation.outcome == "refused":
        raise AirflowSkipException(activation.reason)
    context["outlet_events"][release_asset(unit)].extra = activation.facts
    return activation.model_dump(mode="json")


@task(trigger_rule=TriggerRule.ALL_DONE, execution_timeout=timedelta(minutes=15))
def report(plan: dict[str, Any] | None) -> str:
    """Write the page about the run; returns its key in object storage."""
    context = get_current_context()
    if plan is None:
        raise AirflowSkipException("the run was not planned: see the error of task plan")
    if reason := nothing_to_do(context):
        raise AirflowSkipException(reason)
    with ferry_task() as settings:
        from pipelines.run import RunPlan
        from pipelines.steps import ending

        return ending.report_step(settings, RunPlan.model_validate(plan), _ended_tasks(context))


def _build_options(unit: Unit) -> dict[str, Any]:
    """Return what every build has: its place among the heavy tasks, and its weight in the queue."""
    weight = 1 + _LONG_BUILDS.index(unit) if unit in _LONG_BUILDS else 0
    return {
        "task_id": "build",
        "pool_slots": heavy_slots(),
        # Less than the weights of online_check and restore.
        "priority_weight": 5 + weight,
        "weight_rule": "absolute",
    }


def _ended_tasks(context: Any) -> list[dict[str, Any]]:
    """Return `task_id`, `state` and `duration` (seconds) of the run's tasks that have ended."""
    run = context["dag_run"]
    return list(context["ti"].get_task_breadcrumbs(run.dag_id, run.run_id))


@task(
    trigger_rule=TriggerRule.ALL_DONE,
    execution_timeout=timedelta(minutes=5),
    on_failure_callback=FerryNotifier(),
)
def finish(plan: dict[str, Any] | None) -> dict[str, Any]:
    """Write the summary, tell of refusals and idle days, and fail if a unit or a task failed."""
    context = get_current_context()
    if plan is None:
        raise AirflowFailException("the run was not planned: see the error of task plan")
    if reason := nothing_to_do(context):
        raise AirflowSkipException(reason)
    with ferry_task() as settings:
        from pipelines.run import RunPlan
        from pipelines.steps import ending

        summary = ending.finish_step(settings, RunPlan.model_validate(plan))
    dag_run = context["dag_run"]
    try:
        ending.require_success(summary)
    except ReleaseError as error:
        raise AirflowFailException(str(error)) from error
    # A task that was cleared may have failed although its unit had gone live before.
    if failed := [task["task_id"] for task in _ended_tasks(context) if task["state"] == "failed"]:
        raise AirflowFailException(f"no unit failed, but these tasks did: {', '.join(failed)}")
    if plan["run_type"] != "backfill" and (refused := summary.refusals()):
        tell(f"{dag_run.dag_id}: not live", "\n".join(refused), dag_run.dag_id, dag_run.run_id)
    if idle := summary.idleness():
        tell(f"{dag_run.dag_id}: nothing new", idle, dag_run.dag_id, dag_run.run_id)
    return summary.model_dump(mode="json")


@dag(
    dag_id="daily_retraining",
    doc_md=DOC,
    # Also without a schedule, for backfills.
    schedule=DataDayTimetable(_OPERATIONS.schedule, _CALENDAR),
    # The first day that a backfill may go back to, not one from which runs are made up for.
    start_date=pendulum.datetime(1995, 1, 1, tz=_CALENDAR.time_zone),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12 + _OPERATIONS.approval_hours),
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=_OPERATIONS.deadline_hours),
        callback=SyncCallback(
            FerryNotifier,
            {"what": f"it has not ended within {_OPERATIONS.deadline_hours:g} hours"},
        ),
        name="daily_retraining is late",
    ),
    on_failure_callback=EndedRunNotifier(),
    default_args={
        "owner": "ferry",
        "retries": 2,
        "retry_delay": timedelta(seconds=20),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(hours=1),
    },
    params={
        "run_date": Param(
            None,
            type=["null", "string"],
            format="date",
            description="The run sees events before the end of this day. Empty: the last complete "
            "day.",
        ),
        "partial_day": Param(
            False,
            type="boolean",
            description="Build also a run date that has not ended, from the part of it that has "
            "passed; the day is marked incomplete and read again later.",
        ),
        "units": Param(
            list(_UNITS),
            type="array",
            items={"type": "string", "enum": list(_UNITS)},
            examples=list(_UNITS),
            minItems=1,
            uniqueItems=True,
            description="What to build.",
        ),
        "activate": Param(
            "if_newest",
            type="string",
            enum=["if_newest", "always", "never"],
            description="Whether what was built goes live: unless something newer is, whatever is "
            "live, or not at all.",
        ),
        "approval": Param(
            False,
            type="boolean",
            description="Wait for a person's yes before each unit goes live, "
            f"{_OPERATIONS.approval_hours:g} hours at most; then {_OPERATIONS.approval_default}.",
        ),
        "training_days": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            description="Read only so many days before the end of the run date. Empty: all.",
        ),
        "train_again": Param(
            False,
            type="boolean",
            description="Train also units that nothing is new for since what is live of them.",
        ),
        "note": Param(
            None,
            type=["null", "string"],
            maxLength=500,
            description="Why this run; it stands in the report.",
        ),
    },
    tags=["ferry", "release"],
)
def daily_retraining() -> None:
    """Wire the run."""
    plan: Any = plan_run()
    # Days of a backfill take turns at the lake: more of them would only wait for it.
    # Both may wait an hour for the lake before they begin.
    ingest = FerrySparkOperator(
        task_id=INGEST_TASK,
        step="ingest",
        max_active_tis_per_dag=1,
        execution_timeout=timedelta(hours=4),
    )
    features = FerrySparkOperator(
        task_id="features",
        step="features",
        max_active_tis_per_dag=1,
        execution_timeout=timedelta(hours=6),
        pool_slots=heavy_slots(),
    )
    plan >> ingest >> features
    page = report(plan)
    page >> finish(plan)

    for unit in _UNITS:

        @task_group(group_id=unit)
        def release(unit: Unit = unit) -> None:
            build: Any
            if unit in RANKERS:
                build = build_keras.override(**_build_options(unit))(unit, plan)
            else:
                build = FerrySparkOperator(
                    step="build",
                    unit=unit,
                    execution_timeout=timedelta(hours=4),
                    **_build_options(unit),
                )
            stage = FerrySparkOperator(task_id="stage", step="stage", unit=unit)
            approve = ReleaseApproval(task_id="approve", unit=unit, operations=_OPERATIONS)
            live = activate.override(task_id="activate", outlets=[release_asset(unit)])(unit, plan)
            features >> build >> stage >> approve >> live >> page

        release()


daily_retraining()
