"""Takes a database of Airflow from the timetable before to Ferry's own, and prints JSON.

It does what the DAG processor, the scheduler and the backfill's command do, without their loops.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pendulum
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models import DagRun
from airflow.models.backfill import Backfill, ReprocessBehavior, _create_backfill
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.sdk import DAG, CronDataIntervalTimetable
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy import select

from pipelines.airflow.timetable import DataDayTimetable
from pipelines.day_calendar import DayCalendar

_DAG, _BUNDLE = "daily", "tests"
_DAY = timedelta(days=1)


def parsed(schedule: Any) -> list[str | None]:
    """Have the DAG parsed with this schedule; returns logical date and start of its next run."""
    dag = DAG(_DAG, schedule=schedule, start_date=pendulum.datetime(1995, 1, 1), catchup=False)
    dag.fileloc = __file__
    dag.relative_fileloc = __file__
    lazy = LazyDeserializedDAG.from_dag(dag)
    with create_session() as session:
        update_dag_parsing_results_in_db(_BUNDLE, None, [lazy], {}, None, set(), session)
    with create_session() as session:
        model = session.get_one(DagModel, _DAG)
        moments = (model.next_dagrun, model.next_dagrun_create_after)
        return [moment.isoformat() if moment else None for moment in moments]


def schedule_what_is_due() -> None:
    with create_session() as session:
        job = Job()  # type: ignore[no-untyped-call]
        session.add(job)
        model = session.get_one(DagModel, _DAG)
        model.is_paused = False
        session.flush()
        SchedulerJobRunner(job=job)._create_dag_runs([model], session)


def backfill(first: datetime, last: datetime) -> None:
    _create_backfill(
        dag_id=_DAG,
        from_date=first,
        to_date=last,
        max_active_runs=1,
        reverse=False,
        dag_run_conf={},
        triggering_user_name="a test",
        reprocess_behavior=ReprocessBehavior.NONE,
    )
    with create_session() as session:
        for made in session.scalars(select(Backfill)):
            made.completed_at = datetime.now(UTC)


def runs() -> dict[str, str]:
    """Return the logical dates of all runs, by name."""
    with create_session() as session:
        return {
            run.run_id: run.logical_date.isoformat()
            for run in session.scalars(select(DagRun))
            if run.logical_date
        }


def main() -> None:
    initdb()
    with create_session() as session:
        session.add(DagBundleModel(name=_BUNDLE))
    parsed(CronDataIntervalTimetable("0 3 * * *", timezone="UTC"))
    schedule_what_is_due()
    before = runs()
    (last,) = map(datetime.fromisoformat, before.values())
    backfill(last - 4 * _DAY, last - 2 * _DAY)
    old = runs()
    # With the delay, days are complete at the hour at which runs started before.
    calendar = DayCalendar(complete_after=timedelta(hours=3))
    upcoming = parsed(DataDayTimetable("0 3 * * *", calendar))
    midnight = last.replace(hour=0)
    backfill(midnight - 5 * _DAY, midnight)
    new = {name: date for name, date in runs().items() if name not in old}
    by_hand = parsed(DataDayTimetable(None, calendar))
    backfill(midnight - 7 * _DAY, midnight - 6 * _DAY)
    print(  # noqa: T201
        json.dumps(
            {
                "last": last.isoformat(),
                "old": sorted(old.values()),
                "upcoming": upcoming,
                "backfilled": sorted(new.values()),
                "by_hand": by_hand,
                "backfilled_by_hand": sorted(
                    date for name, date in runs().items() if name not in {**old, **new}
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
