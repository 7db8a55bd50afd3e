"""How many events a run's days have, for the gates of its data."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from pipelines.data.values import day_of
from pipelines.day_calendar import DayCalendar
from pipelines.errors import DataError
from pipelines.evaluation.data_gates import Volume
from pipelines.features.schema import TIMESTAMP

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_SECONDS_PER_DAY = 86_400


def measure_volume(
    events: DataFrame,
    run_date: date,
    days: int,
    calendar: DayCalendar,
    incomplete: Collection[date] = (),
) -> Volume:
    """Count the events of `run_date` and of the last `days` complete days before it that have any.

    `events` has ``timestamp``, and none after the end of `run_date`. `incomplete` are the days
    that were read before they were complete.

    Raises:
        DataError: there is no event.
    """
    newest = events.agg(sf.unix_seconds(sf.max(TIMESTAMP))).first()
    if newest is None or newest[0] is None:
        raise DataError(f"no event on {run_date} or before it")
    day = day_of(sf.col(TIMESTAMP), calendar.time_zone)
    wanted = days + 1 + len(incomplete)
    by_day = events.groupBy(day.alias("day")).count().orderBy(sf.desc("day")).limit(wanted)
    rows = {row[0]: int(row[1]) for row in by_day.collect()}
    earlier = sorted((d for d in rows if d < run_date and d not in incomplete), reverse=True)
    age = (calendar.end_of(run_date).timestamp() - newest[0]) / _SECONDS_PER_DAY
    return Volume(
        run_date=run_date,
        on_run_date=rows.get(run_date, 0),
        trailing={d: rows[d] for d in earlier[:days]},
        age_days=age,
        complete=run_date not in incomplete,
    )
