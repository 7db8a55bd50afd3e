"""The features of one run: point-in-time training samples, and serving features as of its end."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import PipelineConfig
from pipelines.data.contract import DAY, DataSummary, event_schema, item_schema
from pipelines.data.days import UnfinishedDays, lake_id, read_days
from pipelines.data.files import SparkFiles
from pipelines.data.values import day_of
from pipelines.errors import DataError, UnfinishedDataError
from pipelines.evaluation.holdout import Holdout, mark_holdout, mark_validation
from pipelines.features.incremental import Incremental
from pipelines.features.kept import LakeNow, lake_now
from pipelines.features.moments import (
    ASIDE,
    EVENT,
    ITEM,
    ITEM_SUMS,
    MOMENT,
    SAMPLE,
    USER,
    event_moments,
    label,
    of_items,
    of_users,
    queries,
)
from pipelines.features.schema import (
    IS_HOLDOUT,
    ITEM_FEATURES,
    ITEM_ID,
    RATING,
    SAMPLE_COLUMNS,
    TIMESTAMP,
    USER_FEATURES,
    USER_HISTORY,
    USER_ID,
)
from pipelines.lake import Lake, RunPaths
from pipelines.progress import Advance, progress

#: Size of an event in the lake's files, about.
_BYTES_PER_EVENT = 10


def build_features(
    spark: SparkSession,
    config: PipelineConfig,
    lake: Lake,
    paths: RunPaths,
    run_date: date,
    training_days: int | None = None,
    *,
    catalogue: str | None = None,
    keep: bool = False,
) -> DataSummary:
    """Write what the models of a run train on and serve with; doing it again replaces it.

    With `training_days` only events of so many days, the run date among them, are known: to
    samples, statistics and histories alike. `catalogue` is the path of the items as the run's
    ingest left them; without it the lake's are taken. With `keep` a run of many events goes on
    from what earlier ones kept in the lake, and keeps its own
    (:mod:`pipelines.features.incremental`); nobody else may use the lake meanwhile.

    * ``events``: all accepted events before the end of `run_date`, with ``is_holdout`` and
      ``is_validation``
    * ``items``: the catalogue, with the columns of :func:`pipelines.data.contract.item_schema`
    * ``samples``: each event with ``label`` (1.0 if the rating is positive, else 0.0),
      ``is_holdout``, ``is_validation``, the features of that moment and ``user_history``; without
      the events that are neither trained on nor evaluated, so neither mark is null here
    * ``user_features``, ``item_features``: one row for each user with events, and for each item
      with events or in the catalogue, as of the end of `run_date`; users with ``user_history``
    * ``data.json``: :class:`pipelines.data.contract.DataSummary`

    Ids have the types of the configuration, ``user_rated_*`` the type of ``item_id``; counts are
    bigint, ``release_year`` is int, other numbers are double.

    Raises:
        DataError: the lake has no event before the end of `run_date`, or an interrupted ingest
            may have left one of its days incomplete.
    """
    files = SparkFiles(spark)
    _require_whole_days(files, lake, run_date)
    work = f"{paths.root}/_work"
    lake_name = lake_id(files, lake.ratings)
    catalogue = catalogue or lake.items
    now = None
    if keep and not training_days:
        now = lake_now(lake, lake_name, config)
        if not _is_worth_keeping(now, config, run_date):
            files.delete(lake.features)
            now = None
    first_day = run_date - timedelta(days=training_days - 1) if training_days else None
    with progress("features", total=4, unit="steps") as advance:
        files.delete(work)
        if now:
            incremental = Incremental(spark, config, lake, paths, run_date, now, work)
            summary = incremental.build(catalogue, advance)
        else:
            holdout = _write_inputs(spark, config, lake, paths, run_date, first_day, catalogue)
            summary = _summarize(spark, config, paths, run_date, holdout, lake_name)
            advance(1, f"{summary.rows:,} events of {summary.users:,} users")
            _write_features(spark, config, paths, run_date, work, advance)
        files.delete(work)
        summary.save(paths.data_summary)
        advance(1)
    return summary


def _is_worth_keeping(now: LakeNow, config: PipelineConfig, run_date: date) -> bool:
    """Whether there are so many events that going on from the day before is cheaper."""
    days = now.since(None, run_date)
    events = sum(now.days[day].size for day in days) / _BYTES_PER_EVENT
    return bool(days) and events >= config.features.incremental_from


def _write_features(
    spark: SparkSession,
    config: PipelineConfig,
    paths: RunPaths,
    run_date: date,
    work: str,
    advance: Advance,
) -> None:
    """Write samples and features of the run's events, all computed from nothing."""
    end = int(config.data.calendar.end_of(run_date).timestamp()) * 1_000_000
    by_item, by_user = f"{work}/by_item", f"{work}/by_user"
    _write_item_moments(spark, config, paths, by_item, end)
    features = spark.read.parquet(f"{by_item}/{MOMENT}={ITEM}")
    features.select(ITEM_ID, *ITEM_FEATURES).write.mode("overwrite").parquet(paths.item_features)
    advance(1, "item features")
    _write_user_moments(spark, config, by_item, by_user, end)
    features = spark.read.parquet(f"{by_user}/{MOMENT}={USER}")
    features.select(USER_ID, *USER_FEATURES, USER_HISTORY).write.mode("overwrite").parquet(
        paths.user_features
    )
    advance(1, "user features and samples")
    SparkFiles(spark).replace(f"{by_user}/{MOMENT}={SAMPLE}", paths.samples)


def _require_whole_days(files: SparkFiles, lake: Lake, run_date: date) -> None:
    if not files.matches(lake.ratings):
        raise DataError(f"{lake.ratings}: the lake has no events yet: run ingest first")
    days = sorted(d for d in UnfinishedDays(files, lake.ratings).days() if d <= run_date)
    if days:
        raise UnfinishedDataError(
            f"{lake.ratings}: an ingest of {days[0]}"
            + (f" to {days[-1]}" if len(days) > 1 else "")
            + " is at work or was interrupted: run it again"
        )


def _write_inputs(
    spark: SparkSession,
    config: PipelineConfig,
    lake: Lake,
    paths: RunPaths,
    run_date: date,
    first_day: date | None,
    catalogue: str,
) -> Holdout:
    """Write this run's own copy of the events, none before `first_day`, and of the catalogue."""
    is_known = sf.col(DAY) <= sf.lit(run_date)
    if first_day:
        is_known &= sf.col(DAY) >= sf.lit(first_day)
    events = (
        read_days(spark, lake.ratings, event_schema(config.data))
        .where(is_known)
        .select(*EVENT)
        .persist()
    )
    try:
        if events.isEmpty():
            since = f"from {first_day} to" if first_day else "up to"
            raise DataError(f"{lake.ratings}: no event {since} the end of {run_date}")
        calendar = config.data.calendar
        marked, holdout = mark_holdout(events, config.evaluation, run_date, calendar)
        marked = mark_validation(marked, holdout, run_date, calendar)
        marked.sortWithinPartitions(*_in_order()).write.mode("overwrite").parquet(paths.events)
    finally:
        events.unpersist()
    items = spark.read.schema(item_schema(config.data)).parquet(catalogue)
    items.write.mode("overwrite").parquet(paths.items)
    return holdout


def _in_order() -> tuple[str, ...]:
    return (USER_ID, TIMESTAMP, ITEM_ID, RATING)


def _summarize(
    spark: SparkSession,
    config: PipelineConfig,
    paths: RunPaths,
    run_date: date,
    holdout: Holdout,
    lake_name: str,
) -> DataSummary:
    is_holdout = sf.col(IS_HOLDOUT)
    counts = (
        spark.read.parquet(paths.events)
        .agg(
            sf.count("*").alias("rows"),
            sf.count_distinct(USER_ID).alias("users"),
            sf.count_distinct(ITEM_ID).alias("items"),
            day_of(sf.min(TIMESTAMP), config.data.time_zone).alias("first_day"),
            day_of(sf.max(TIMESTAMP), config.data.time_zone).alias("last_day"),
            sf.sum(label(config)).cast("bigint").alias("positives"),
            sf.count_if(is_holdout).alias("holdout_rows"),
            sf.count_distinct(sf.when(is_holdout, sf.col(USER_ID))).alias("holdout_users"),
            sf.count_if(is_holdout.isNull()).alias("set_aside_rows"),
        )
        .collect()[0]
    )
    return DataSummary(
        run_date=run_date,
        lake_id=lake_name,
        catalogue_items=spark.read.parquet(paths.items).count(),
        holdout=holdout.kind,
        holdout_days=holdout.days,
        holdout_fraction=holdout.fraction,
        **counts.asDict(),
    )


def _write_item_moments(
    spark: SparkSession, config: PipelineConfig, paths: RunPaths, target: str, end_micros: int
) -> None:
    """Write each event, and each item at the end, with the item's features of that moment."""
    catalogue = spark.read.parquet(paths.items)
    kind = sf.when(sf.col(IS_HOLDOUT).isNull(), ASIDE).otherwise(SAMPLE)
    events = event_moments(spark.read.parquet(paths.events), config, kind)
    items = catalogue.select(ITEM_ID).union(events.select(ITEM_ID)).distinct()
    moments = events.unionByName(queries(items, ITEM, end_micros), allowMissingColumns=True)
    _write_moments(of_items(moments, catalogue).drop(*ITEM_SUMS), target)


def _write_user_moments(
    spark: SparkSession, config: PipelineConfig, by_item: str, target: str, end_micros: int
) -> None:
    """Write each event, and each user at the end, with the user's features of that moment."""
    events = spark.read.parquet(by_item).where(sf.col(MOMENT) != ITEM)
    users = events.select(USER_ID).distinct()
    moments = events.unionByName(queries(users, USER, end_micros), allowMissingColumns=True)
    listed = of_users(moments, config, resumable=False)
    _write_moments(listed.select(*SAMPLE_COLUMNS, MOMENT), target)


def _write_moments(moments: DataFrame, target: str) -> None:
    moments.write.partitionBy(MOMENT).mode("overwrite").parquet(target)
