"""The temporal holdout: which events a model may train on, and which it is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as sf

from pipelines.config import EvaluationConfig
from pipelines.day_calendar import DayCalendar
from pipelines.features.schema import IS_HOLDOUT, IS_VALIDATION, ITEM_ID, RATING, TIMESTAMP, USER_ID


@dataclass(frozen=True)
class Holdout:
    """Which rule marked the holdout; exactly one of `days` and `fraction` is set."""

    kind: Literal["last_days", "last_fraction"]
    days: int | None = None
    fraction: float | None = None


def mark_holdout(
    events: DataFrame, config: EvaluationConfig, run_date: date, calendar: DayCalendar
) -> tuple[DataFrame, Holdout]:
    """Return the events with ``is_holdout``, and the rule that was used.

    * ``last_days``: true for the last `holdout_days` before the end of `run_date`, for users
      with earlier events; false before that. It is null for the events of the other users in
      those days: nothing was known of them that could be evaluated, and to train on them would
      show a model the time that it is evaluated on. A filter on ``is_holdout`` or on
      ``~is_holdout`` leaves them out.
    * ``last_fraction``, where that gives fewer than `min_holdout_users` users: true for the last
      `holdout_fraction` of each user's events (at least one), the others false. A user with one
      event has none in the holdout. Never null.

    Args:
        events: user_id, item_id, rating, timestamp; distinct, all before the end of `run_date`.
    """
    bounds = events.groupBy(USER_ID).agg(
        sf.min(TIMESTAMP).alias("first"), sf.max(TIMESTAMP).alias("last")
    )
    holdout = choose_holdout(bounds, config, run_date, calendar)
    first = sf.min(TIMESTAMP).over(Window.partitionBy(USER_ID))
    return mark_by(events, holdout, run_date, calendar, first), holdout


def choose_holdout(
    bounds: DataFrame, config: EvaluationConfig, run_date: date, calendar: DayCalendar
) -> Holdout:
    """Return the rule for users with these timestamps of their ``first`` and ``last`` events."""
    start = _start(config.holdout_days, run_date, calendar)
    users = bounds.where((sf.col("first") < _instant(start)) & (sf.col("last") >= _instant(start)))
    if users.count() >= config.min_holdout_users:
        return Holdout("last_days", days=config.holdout_days)
    return Holdout("last_fraction", fraction=config.holdout_fraction)


def mark_by(
    events: DataFrame, holdout: Holdout, run_date: date, calendar: DayCalendar, first: Column
) -> DataFrame:
    """Return the events with ``is_holdout`` by a rule; `first` is the time of a user's first event.

    By days, events of some days can be marked alone, if `first` is of all days.
    """
    if holdout.days is not None:
        return _last_days(events, _start(holdout.days, run_date, calendar), first)
    if holdout.fraction is None:
        raise ValueError("the holdout has neither days nor a fraction")
    return events.withColumn(IS_HOLDOUT, _is_last(Window.partitionBy(USER_ID), holdout.fraction))


def last_unmarked_day(holdout: Holdout, run_date: date) -> date | None:
    """Return the last of the days whose events are all trained on, in this run and in later ones.

    None: an event of any day may be held out.
    """
    return run_date - timedelta(days=2 * holdout.days) if holdout.days is not None else None


def mark_validation(
    events: DataFrame, holdout: Holdout, run_date: date, calendar: DayCalendar
) -> DataFrame:
    """Return the events with ``is_validation``: the last part of those that are not holdout.

    It is cut by the same rule: the `holdout.days` before the holdout begins, or each user's last
    `holdout.fraction` of what is left. Null where ``is_holdout`` is.
    """
    if holdout.days is not None:
        start = _start(2 * holdout.days, run_date, calendar)
        is_last = sf.col(TIMESTAMP) >= _instant(start)
        return events.withColumn(IS_VALIDATION, ~sf.col(IS_HOLDOUT) & is_last)
    if holdout.fraction is None:
        raise ValueError("the holdout has neither days nor a fraction")
    # Within a user's training events; those of the holdout are numbered apart.
    is_last = _is_last(Window.partitionBy(USER_ID, IS_HOLDOUT), holdout.fraction)
    return events.withColumn(IS_VALIDATION, ~sf.col(IS_HOLDOUT) & is_last)


def _instant(moment: datetime) -> Column:
    # From a number, so that no time zone of the machine has a part in it.
    return sf.timestamp_seconds(sf.lit(int(moment.timestamp())))


def _start(days: int, run_date: date, calendar: DayCalendar) -> datetime:
    return calendar.end_of(run_date - timedelta(days=days))


def _last_days(events: DataFrame, start: datetime, first: Column) -> DataFrame:
    mark = (
        sf.when(sf.col(TIMESTAMP) < _instant(start), sf.lit(False))
        .when(first < _instant(start), sf.lit(True))
        .otherwise(sf.lit(None).cast("boolean"))
    )
    return events.withColumn(IS_HOLDOUT, mark)


def _is_last(group: WindowSpec, fraction: float) -> Column:
    """Return whether an event is among the last `fraction` of its group, at least one of two."""
    # Item and rating decide between events of the same moment.
    newest_first = group.orderBy(
        sf.col(TIMESTAMP).desc(), sf.col(ITEM_ID).desc(), sf.col(RATING).desc()
    )
    count = sf.count("*").over(group)
    size = sf.when(count > 1, sf.greatest(sf.lit(1), sf.floor(count * fraction))).otherwise(0)
    return sf.row_number().over(newest_first) <= size
