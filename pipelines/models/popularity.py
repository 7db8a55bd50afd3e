"""Popularity: the list for users without one of their own, and the baseline of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from pipelines.models.interactions import IS_POSITIVE, ITEM

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def popularity(pairs: DataFrame, catalogue: DataFrame) -> DataFrame:
    """Return the catalogue with ``popularity``: how many users have a positive event with it."""
    counts = pairs.where(IS_POSITIVE).groupBy(ITEM).agg(sf.count("*").alias("popularity"))
    return catalogue.join(counts, ITEM, "left").fillna(0, ["popularity"])
