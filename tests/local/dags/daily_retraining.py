"""Stands in for the daily DAG: its outline, without the work. The run date decides what happens:
in the year 2001 a task fails.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException


@dag(
    dag_id="daily_retraining",
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={"run_date": Param("2026-01-01", type="string", format="date")},
)
def stand_in() -> None:
    @task
    def plan(params: dict[str, Any] | None = None) -> dict[str, Any]:
        run_date = (params or {})["run_date"]
        return {"run_date": run_date, "version": int(run_date.replace("-", "") + "0001")}

    @task
    def build(planned: dict[str, Any]) -> None:
        logging.getLogger("ferry.progress").info("progress build: 1/2 steps (50%)")
        time.sleep(2)
        if planned["run_date"].startswith("2001"):
            try:
                raise OSError("the disk is full")
            except OSError as error:
                raise AirflowFailException("recs: not built, free some space") from error

    @task
    def finish() -> None:
        logging.getLogger("ferry").info("finished")

    build(plan()) >> finish()


stand_in()
