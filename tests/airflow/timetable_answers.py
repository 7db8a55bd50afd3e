"""Asks the timetable what Airflow asks it, in a process with Airflow, and prints JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pendulum
from airflow.exceptions import AirflowTimetableInvalid
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from airflow.utils.types import DagRunType

from pipelines.airflow.timetable import DataDayTimetable
from pipelines.day_calendar import DayCalendar

ZONE, DELAY = "Europe/Berlin", timedelta(hours=1.5)
EVER = pendulum.datetime(1995, 1, 1)


def stored(timetable: DataDayTimetable) -> Any:
    """Return the DAG as scheduler and API server have it: out of Airflow's database."""
    dag = DAG("daily", schedule=timetable, start_date=EVER, catchup=False)
    text = json.dumps(DagSerialization.to_dict(dag))
    return DagSerialization.from_dict(json.loads(text))


def told(info: DagRunInfo | None) -> list[str] | None:
    """Return logical date, end of the interval and start of a run, in UTC."""
    if info is None:
        return None
    assert info.data_interval
    moments = (info.logical_date, info.data_interval.end, info.run_after)
    return [moment.astimezone(UTC).isoformat() for moment in moments if moment]


def interval(start: str, end: str) -> DataInterval:
    return DataInterval(*(pendulum.instance(datetime.fromisoformat(t)) for t in (start, end)))


def refusal(expression: str) -> str:
    try:
        DataDayTimetable(expression, DayCalendar()).validate()
    except AirflowTimetableInvalid as error:
        return str(error)
    return ""


def main() -> None:
    calendar = DayCalendar(ZONE, DELAY)
    original = DataDayTimetable("0 3 * * 1", calendar)
    by_hand = DataDayTimetable(None, DayCalendar())
    weekly, unscheduled = stored(original), stored(by_hand)
    timetable: Timetable = weekly.timetable
    days = (pendulum.datetime(2026, 11, 24), pendulum.datetime(2026, 11, 26))
    utc = DataDayTimetable("0 3 * * *", DayCalendar())
    # Of the timetable that Ferry had before: the run that started at three this night.
    tonight = datetime.now(UTC).replace(hour=3, minute=0, second=0, microsecond=0)
    if tonight > datetime.now(UTC):
        tonight -= timedelta(days=1)
    old = DataInterval(pendulum.instance(tonight - timedelta(days=1)), pendulum.instance(tonight))
    first = stored(utc).next_dagrun_info(last_automated_run_info=None)
    after_old = utc.next_dagrun_info(
        last_automated_data_interval=old, restriction=TimeRestriction(EVER, None, False)
    )
    following = weekly.timetable.next_dagrun_info(
        last_automated_data_interval=interval("2026-03-01T00:00+01:00", "2026-03-02T00:00+01:00"),
        restriction=TimeRestriction(None, None, True),
    )
    ended = weekly.timetable.next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(None, pendulum.datetime(2020, 1, 1), False),
    )
    day = interval("2026-11-23T23:00+00:00", "2026-11-24T23:00+00:00")
    old_day = interval("2026-11-24T03:00+00:00", "2026-11-25T03:00+00:00")
    names = [
        timetable.generate_run_id(run_type=kind, run_after=days[1], data_interval=of)
        for kind, of in (
            (DagRunType.SCHEDULED, day),
            (DagRunType.SCHEDULED, old_day),
            (DagRunType.MANUAL, day),
        )
    ]
    manual = timetable.infer_manual_data_interval(run_after=pendulum.datetime(2026, 3, 29, 23, 29))
    print(  # noqa: T201
        json.dumps(
            {
                "equal": [timetable == original, unscheduled.timetable == by_hand],
                "differs": timetable != DataDayTimetable("0 3 * * 1", DayCalendar(ZONE)),
                "texts": [[t.summary, t.description] for t in (timetable, unscheduled.timetable)],
                "tonight": tonight.isoformat(),
                "first": told(first),
                "after_old": told(after_old),
                "following": told(following),
                "ended": told(ended),
                "by_hand": told(unscheduled.next_dagrun_info(last_automated_run_info=None)),
                "backfill": [told(info) for info in weekly.iter_dagrun_infos_between(*days)],
                "backfill_by_hand": [
                    told(info) for info in unscheduled.iter_dagrun_infos_between(*days)
                ],
                "periodic": unscheduled.timetable.periodic,
                "names": names,
                "manual": [moment.isoformat() for moment in manual],
                "refusals": [refusal("@hourly"), refusal("nightly"), refusal("@weekly")],
            }
        )
    )


if __name__ == "__main__":
    main()
