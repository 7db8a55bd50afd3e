"""Events and catalogue as the list-making models take them: checked, with dense item numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from pipelines.errors import DataError
from pipelines.features.schema import IS_HOLDOUT, ITEM_ID, RATING, TIMESTAMP, USER_ID
from pipelines.models.base import BuildInputs

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Number of an item in the catalogue, from 0, in the order of the ids.
ITEM = "item"
IS_POSITIVE = "is_positive"
#: When a user first had anything to do with an item, and when they last liked it.
FIRST_AT, LIKED_AT = "first_at", "liked_at"


def read_events(spark: SparkSession, inputs: BuildInputs) -> DataFrame:
    """Return user_id, item_id, timestamp, is_positive and is_holdout of every event.

    Raises:
        DataError: there are no events, no positive ones to train on, or none to evaluate on.
    """
    threshold = inputs.config.data.positive_rating
    events = spark.read.parquet(inputs.paths.events).select(
        USER_ID, ITEM_ID, TIMESTAMP, (sf.col(RATING) >= threshold).alias(IS_POSITIVE), IS_HOLDOUT
    )
    counts = events.agg(
        sf.count("*").alias("events"),
        sf.count_if(sf.col(IS_HOLDOUT)).alias("holdout"),
        sf.count_if(sf.col(IS_POSITIVE) & ~sf.col(IS_HOLDOUT)).alias("training positives"),
        sf.count_if(sf.col(IS_POSITIVE) & sf.col(IS_HOLDOUT)).alias("holdout positives"),
    ).first()
    for name, count in counts.asDict().items() if counts else ():
        if count == 0:
            raise DataError(f"{inputs.paths.events}: no {name} (positive is rating >= {threshold})")
    return events


def number_ids(frame: DataFrame, column: str, number: str) -> DataFrame:
    """Return the distinct ids of `column` with dense int `number`s from 0, in the ids' order.

    Ids may be strings or any int64; Spark's ALS takes only 32-bit numbers. The sort is by ranges,
    so that no single task holds all ids.
    """
    ids = frame.select(column).distinct().orderBy(column)
    return ids.zipWithIndex(number).withColumn(number, sf.col(number).cast("int"))


def read_catalogue(spark: SparkSession, inputs: BuildInputs) -> DataFrame:
    """Return item_id and its number `item` for every item of the catalogue."""
    return number_ids(spark.read.parquet(inputs.paths.items), ITEM_ID, ITEM)


def by_user_and_item(events: DataFrame, catalogue: DataFrame) -> DataFrame:
    """Return one row for each user and catalogued item.

    The columns are user_id, item, is_positive (any of the pair's events is), first_at (timestamp
    of its first event) and liked_at (of its latest positive one, null without one). Events of items
    that the catalogue does not have are left out: what can't be shown can't be recommended.
    """
    numbered = events.join(catalogue, ITEM_ID)
    return numbered.groupBy(USER_ID, ITEM).agg(
        sf.max(IS_POSITIVE).alias(IS_POSITIVE),
        sf.min(TIMESTAMP).alias(FIRST_AT),
        sf.max(sf.when(sf.col(IS_POSITIVE), sf.col(TIMESTAMP))).alias(LIKED_AT),
    )


def seen_items(pairs: DataFrame) -> DataFrame:
    """Return ``id`` (the user) and ``seen`` (array<int> of item numbers)."""
    return pairs.groupBy(sf.col(USER_ID).alias("id")).agg(sf.collect_list(ITEM).alias("seen"))


def titles(spark: SparkSession, inputs: BuildInputs) -> DataFrame:
    """Return the text table item_id -> title, as the columns ``id`` and ``value``."""
    items = spark.read.parquet(inputs.paths.items)
    return items.where(sf.col("title").isNotNull()).select(
        sf.col(ITEM_ID).alias("id"), sf.col("title").alias("value")
    )
