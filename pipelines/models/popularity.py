"""Popularity: the lists for users without one of their own, and the baseline of the others.

The baseline counts every positive alike. What is served lets them fade: whoever comes today wants
what is liked today.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as sf

from pipelines.features.schema import ITEM_ID
from pipelines.models.interactions import IS_POSITIVE, ITEM, LIKED_AT

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: The list over all items, and what stands before a genre's name in the ids of the others.
OVERALL, GENRE_PREFIX = "all", "genre:"
_SECONDS_PER_DAY = 86_400


def popularity(pairs: DataFrame, catalogue: DataFrame) -> DataFrame:
    """Return the catalogue with ``popularity``: how many users have a positive event with it."""
    counts = pairs.where(IS_POSITIVE).groupBy(ITEM).agg(sf.count("*").alias("popularity"))
    return catalogue.join(counts, ITEM, "left").fillna(0, ["popularity"])


def popular_lists(
    pairs: DataFrame, items: DataFrame, half_life_days: float | None, size: int
) -> DataFrame:
    """Return ``id`` and ``value``: the `size` most popular items overall and of each genre.

    `pairs` are those of :func:`pipelines.models.interactions.by_user_and_item`; `items` has
    item_id, item and ``genres`` (array<string>, may be null). A user's like of an item counts
    2^(-age / half life), aged at the last like of all; ties go by item number. The ids are ``all``
    and ``genre:<name>``; items that nobody likes are at the end.
    """
    likes = pairs.where(IS_POSITIVE)
    if half_life_days is None:
        weight = sf.lit(1.0)
    else:
        last = likes.agg(sf.unix_micros(sf.max(LIKED_AT))).first()
        age = (sf.lit(last[0] if last else 0) - sf.unix_micros(LIKED_AT)) / 1e6
        weight = sf.pow(sf.lit(2.0), -age / (half_life_days * _SECONDS_PER_DAY))
    # Spark adds up in any order: rounding keeps the last bit from deciding places.
    scores = likes.groupBy(ITEM).agg(sf.round(sf.sum(weight), 9).alias("score"))
    scored = items.join(scores, ITEM, "left").fillna(0.0, ["score"])
    genres = sf.transform(
        sf.array_distinct(sf.coalesce("genres", sf.array())),
        lambda genre: sf.concat(sf.lit(GENRE_PREFIX), genre),
    )
    listed = scored.withColumn("id", sf.explode(sf.array_insert(genres, 1, sf.lit(OVERALL))))
    best_first = Window.partitionBy("id").orderBy(sf.desc("score"), ITEM)
    return (
        listed.withColumn("place", sf.row_number().over(best_first))
        .where(sf.col("place") <= size)
        .groupBy("id")
        .agg(sf.sort_array(sf.collect_list(sf.struct("place", ITEM_ID))).alias("listed"))
        .select("id", sf.col(f"listed.{ITEM_ID}").alias("value"))
    )
