"""Stands in for the daily DAG and those beside it: outlines, without the work. The run date decides
what happens: in the year 2001 a task fails, in the year 2002 the gates refuse the unit, in the year
2003 a task takes long enough to interrupt the run.
"""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, Param, TriggerRule, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

REFUSAL = "version 200203010001 was refused by its gates: ndcg_at_10 is 0.03, must be more"


@dag(
    dag_id="daily_retraining",
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={
        "run_date": Param("2026-01-01", type="string", format="date"),
        "partial_day": Param(False, type="boolean"),
    },
)
def stand_in() -> None:
    @task
    def plan(params: dict[str, Any] | None = None) -> dict[str, Any]:
        run_date = (params or {})["run_date"]
        return {"run_date": run_date, "version": int(run_date.replace("-", "") + "0001")}

    @task
    def build(planned: Any) -> None:
        logging.getLogger("ferry.progress").info("progress build: 1/2 steps (50%)")
        time.sleep(20 if planned["run_date"].startswith("2003") else 2)
        if planned["run_date"].startswith("2001"):
            try:
                raise OSError("the disk is full")
            except OSError as error:
                raise AirflowFailException("recs: not built, free some space") from error

    @task
    def stage(planned: Any) -> None:
        if planned["run_date"].startswith("2002"):
            raise AirflowSkipException(REFUSAL)

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def finish(planned: Any) -> None:
        folder = Path(os.environ["FERRY_LAKE"]) / "runs" / str(planned["version"])
        for name, columns in {
            "events": {"user_id": [71], "item_id": [5]},
            "items": {"item_id": [5, 6, 7], "title": ["A", "B", "C"]},
        }.items():
            import pyarrow as pa
            import pyarrow.parquet as pq

            (folder / name).mkdir(parents=True)
            pq.write_table(pa.table(columns), folder / name / "part.parquet")
        metric = {"value": 0.25, "baselines": {"popularity": 0.2}}
        unit = {"unit": "recs", "outcome": "live", "version": planned["version"], "reason": ""}
        if planned["run_date"].startswith("2002"):
            unit |= {"outcome": "refused", "version": 200112310001, "reason": REFUSAL}
        summary = {**planned, "units": [{**unit, "metrics": {"ndcg@10": metric}}]}
        (folder / "summary.json").write_text(json.dumps(summary))

    planned = plan()
    build(planned) >> stage(planned) >> finish(planned)


stand_in()


for beside in ("online_check", "retention"):

    @dag(dag_id=beside, schedule=None)
    def stand_in_beside() -> None:
        task(task_id="nothing")(lambda: None)()

    stand_in_beside()
