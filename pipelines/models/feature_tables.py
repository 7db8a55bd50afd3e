"""The features that the rankers read at serving time, as text tables for Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from pipelines.features.schema import (
    ITEM_FEATURES,
    ITEM_ID,
    USER_FEATURES,
    USER_HISTORY,
    USER_ID,
)
from pipelines.models.base import BuildInputs, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def feature_tables(spark: SparkSession, inputs: BuildInputs) -> list[Table]:
    """Return ``user_features`` and ``item_features``, id -> compact JSON array; ``user_history``.

    The array's values are in the order of USER_FEATURES or ITEM_FEATURES, null where missing;
    item ids among them have the ids' own type. A user's history are item ids, newest first, and
    none for a user without a positive event.
    """
    users = spark.read.parquet(inputs.paths.user_features)
    items = spark.read.parquet(inputs.paths.item_features)
    return [
        Table("user_features", "text", _as_json(users, USER_ID, USER_FEATURES)),
        Table("item_features", "text", _as_json(items, ITEM_ID, ITEM_FEATURES)),
        Table(
            "user_history",
            "ids",
            users.select(sf.col(USER_ID).alias("id"), sf.col(USER_HISTORY).alias("value")),
        ),
    ]


def _as_json(frame: DataFrame, key: str, names: Sequence[str]) -> DataFrame:
    # Spark's arrays have one type for all values: each value becomes JSON by itself, from an
    # array of one, without its brackets.
    values = [sf.regexp_replace(sf.to_json(sf.array(name)), r"^\[|\]$", "") for name in names]
    text = sf.concat(sf.lit("["), sf.concat_ws(",", *values), sf.lit("]"))
    return frame.select(sf.col(key).alias("id"), text.alias("value"))
