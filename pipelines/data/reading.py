"""What was read of a source: which rows go into the lake, and which days they replace or add to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import DataConfig
from pipelines.data.contract import DAY, EVENT_COLUMNS, event_schema
from pipelines.data.day_records import DayRecord, LeftOut, SourceFile
from pipelines.data.days import read_days
from pipelines.data.scope import Scope
from pipelines.data.tally import Tally
from pipelines.lake import Lake


@dataclass(frozen=True)
class Reading:
    """Rows that were read, and what is to be done with them.

    `rows` (cached) are the validated rows with ``scope``: those that are ``input`` have all their
    columns. `replaced` are the days whose rows take the place of what the lake holds; rows of
    other days are added to it. `added_to` are days that were read of which the source has lost a
    part. `unchanged` days were looked at, and stay.
    """

    run_date: date
    rows: DataFrame
    tally: Tally
    replaced: frozenset[date]
    added_to: frozenset[date]
    unchanged: frozenset[date]
    #: By day, what is known now of the files that were read for it.
    files: Mapping[date, frozenset[SourceFile]]
    #: Records of days that are not read, with what is new of them.
    others: Mapping[date, DayRecord]
    #: By day, rows of files for each day that came too late.
    too_late: Mapping[date, int] = field(default_factory=dict)
    unreadable: dict[date, str] = field(default_factory=dict)

    def counted_too_late(self, left_out: Mapping[date, int]) -> int:
        """Return how many of the earlier rows are left out for being late."""
        known = self.tally.digests.keys()
        return sum(n for day, n in left_out.items() if day in known and day <= self.run_date)


def records_of_others(
    scope: Scope,
    seen: Mapping[date, str],
    count_late: Callable[[Collection[date]], Mapping[date, int]],
    now: datetime,
) -> dict[date, DayRecord]:
    """Return the records of days that are not read, with the rows that came too late for them.

    `seen` says what the source looks like now for such days; they are counted once for each look.
    """
    others = dict(scope.lake.records)
    if scope.only is not None:
        return others
    new = {}
    for day, look in seen.items():
        record = others.get(day)
        if record and record.digest == look:
            others[day] = record.model_copy(update={"left_out": None})
        elif record is None or record.left_out is None or record.left_out.seen != look:
            new[day] = look
    if new:
        rows = count_late(sorted(new))
        for day, look in new.items():
            # Of a day that was passed by nothing is held: what has come since is all of it.
            record = others.get(day) or DayRecord(read_at=now, complete=True)
            left_out = LeftOut(rows=rows.get(day, 0), seen=look)
            others[day] = record.model_copy(update={"left_out": left_out})
    return others


def count_missing(
    spark: SparkSession,
    config: DataConfig,
    lake: Lake,
    validated: DataFrame,
    days: Collection[date],
) -> dict[date, int]:
    """Return by day how many valid rows the lake does not hold."""
    is_of_days = sf.col(DAY).isin(sorted(days))
    new = (
        validated.where(is_of_days & sf.col("reason").isNull())
        .select(DAY, *EVENT_COLUMNS)
        .distinct()
    )
    held = read_days(spark, lake.ratings, event_schema(config)).where(is_of_days)
    late = new.join(held, [DAY, *EVENT_COLUMNS], "left_anti")
    return {row[0]: row[1] for row in late.groupBy(DAY).count().collect()}
