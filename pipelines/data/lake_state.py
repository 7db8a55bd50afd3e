"""What the lake holds now, and the source that it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pyspark.sql import SparkSession

from pipelines.config import DataConfig
from pipelines.data.contract import DAY, event_schema
from pipelines.data.day_records import inferred_records, load_records
from pipelines.data.days import UnfinishedDays, held_days
from pipelines.data.files import SparkFiles
from pipelines.data.identity import WAY_OUT, LakeSource, require_same_source
from pipelines.data.scope import LakeDays
from pipelines.errors import OtherSourceError
from pipelines.lake import Lake


@dataclass(frozen=True)
class LakeState:
    """The days that the lake holds, and the source to read."""

    days: LakeDays
    source: LakeSource

    @classmethod
    def of(cls, spark: SparkSession, config: DataConfig, lake: Lake) -> LakeState:
        """Look at the lake.

        Raises:
            OtherSourceError: it was made from another source.
        """
        files = SparkFiles(spark)
        interrupted = UnfinishedDays(files, lake.ratings).days()
        there = held_days(files, lake.ratings)
        held = there - interrupted
        source = LakeSource.configured(config, lake)
        if there:
            made_from = LakeSource.of_lake(lake)
            if made_from is None:
                _require_as_before(spark, config, lake, max(there))
            else:
                require_same_source(lake, made_from, source)
                source = source.model_copy(update={"origin": source.origin or made_from.origin})
        known = load_records(lake.ratings)
        # A record stays while its day is written anew: what it was read from is known.
        records = dict(known)
        if held - records.keys():
            inferred = inferred_records(files, lake.ratings, config.calendar)
            records = {day: inferred[day] for day in held if day in inferred} | records
        return cls(LakeDays(frozenset(held), records, frozenset(interrupted)), source)


def _require_as_before(spark: SparkSession, config: DataConfig, lake: Lake, day: date) -> None:
    """Refuse what can't have made a lake that does not know its source: an earlier Ferry's.

    Its ids have the types of its tables, and its days are UTC.
    """
    if config.time_zone != "UTC":
        raise OtherSourceError(
            f"the lake {lake.root} has days in UTC, and data.time_zone is {config.time_zone}: a "
            f"row can't stand in two of them. {WAY_OUT}"
        )
    there = spark.read.parquet(f"{lake.ratings}/{DAY}={day}").schema
    for wanted in event_schema(config).fields:
        found = there[wanted.name].dataType
        if wanted.name.endswith("_id") and found != wanted.dataType:
            raise OtherSourceError(
                f"the lake {lake.root} holds {wanted.name} as {found.simpleString()}, and "
                f"data.{wanted.name}_type says {wanted.dataType.simpleString()}: another source "
                f"made it. {WAY_OUT}"
            )
