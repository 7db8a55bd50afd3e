"""Reading a source with the whole history: each day is known by what its rows add up to."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import DataConfig
from pipelines.data.contract import DAY, EVENT_COLUMNS
from pipelines.data.day_records import plain_path
from pipelines.data.files import SparkFiles
from pipelines.data.reading import Reading, count_missing, records_of_others
from pipelines.data.scope import Scope
from pipelines.data.source import read_source
from pipelines.data.tally import HASH, SCOPE, tally_rows
from pipelines.data.validate import validate
from pipelines.lake import Lake


def read_history(
    spark: SparkSession, config: DataConfig, lake: Lake, scope: Scope, now: datetime
) -> Reading:
    """Read a source with the whole history, once; look at the rows of all days.

    Raises:
        DataError: the source is not there, or a column is missing.
    """
    path = config.events.resolve(lake, scope.run_date.isoformat())
    validated = validate(
        read_source(spark, config.events, path, EVENT_COLUMNS), config, scope.run_date
    )
    hashed = sf.xxhash64(*EVENT_COLUMNS, "reason", "raw")
    # What has no time of its own is counted with whatever day it is read on: it is no change.
    rows = validated.withColumn(HASH, sf.when(sf.col("timestamp").isNotNull(), hashed))
    scoped = _with_scope(spark, rows, scope).persist()
    tally = tally_rows(scoped)
    looked_at = {*tally.valid, *(day for day, _ in tally.bad)}
    unchanged = frozenset(
        day for day in looked_at if not scope.is_changed(day, tally.digests.get(day, ""))
    )
    rows_of = {day: tally.dated.get(day, 0) for day in looked_at - unchanged}
    paths = {plain_path(file.path) for file in SparkFiles(spark).list_source(path)}
    cut_off = scope.cut_off(rows_of, paths, min(tally.dated, default=scope.run_date))
    stay = {
        day: digest
        for day, digest in tally.digests.items()
        if day in scope.lake.held and day not in looked_at and day <= scope.run_date
    }
    # Of a day of an earlier Ferry no digest is known: what the source has of it now is what it had.
    known = scope.lake.records
    adopted = {
        day: known[day].model_copy(update={"digest": digest})
        for day, digest in stay.items()
        if known[day].digest is None and scope.only is None
    }
    late = {day: digest for day, digest in stay.items() if known[day].digest}
    tally = tally.without(unchanged)

    def count_late(days: Collection[date]) -> dict[date, int]:
        return count_missing(spark, config, lake, validated, days)

    return Reading(
        run_date=scope.run_date,
        rows=scoped,
        tally=tally,
        replaced=frozenset(rows_of) - cut_off,
        added_to=cut_off,
        unchanged=unchanged,
        files=tally.files,
        others=records_of_others(scope, late, count_late, now) | adopted,
    )


def _with_scope(spark: SparkSession, rows: DataFrame, scope: Scope) -> DataFrame:
    """Say of each row whether it is input, earlier or later; empty those that are no input.

    (The latter are only counted, and the frame is kept while the days are written.)
    """
    if scope.only is None:
        kept = [day for day in scope.lake.held if not scope.is_read_from_history(day)]
        is_other = sf.col("_named").isNotNull()
    else:
        kept = list(scope.only)
        is_other = sf.col("_named").isNull() | sf.col(HASH).isNull()
    named = spark.createDataFrame([(day, True) for day in kept], f"{DAY} date, _named boolean")
    where = (
        sf.when(sf.col(DAY) > sf.lit(scope.run_date), "later")
        .when(is_other, "earlier")
        .otherwise("input")
    )
    scoped = rows.join(sf.broadcast(named), DAY, "left").withColumn(SCOPE, where)
    is_input = sf.col(SCOPE) == "input"
    contents = [name for name in rows.columns if name not in (DAY, "reason", HASH)]
    return scoped.select(
        SCOPE,
        DAY,
        "reason",
        HASH,
        *(sf.when(is_input, sf.col(name)).alias(name) for name in contents),
    )
