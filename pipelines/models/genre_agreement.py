"""Whether nearest neighbours have something in common that no model of them was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from pipelines.errors import DataError
from pipelines.features.schema import ITEM_ID
from pipelines.models.base import Metric
from pipelines.models.interactions import ITEM, number_ids

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Neighbours looked at, and random partners drawn, for each item in the comparison of genres.
_PAIRS_PER_ITEM = 10


def genre_agreement(catalogue: DataFrame, neighbours: DataFrame) -> Metric:
    """Return the share of nearest neighbours with a common genre, beside that of random pairs.

    `catalogue` has item_id and genres (array<string>); `neighbours` ``id`` and ``value``, most
    similar first.

    Raises:
        DataError: fewer than two of the items have a genre.
    """
    genres = (
        catalogue.where(sf.size("genres") > 0)
        .select(ITEM_ID, "genres")
        .join(neighbours.select(sf.col("id").alias(ITEM_ID)), ITEM_ID)
    )
    numbered = genres.join(number_ids(genres, ITEM_ID, ITEM), ITEM_ID).cache()
    count = numbered.count()
    if count < 2:
        raise DataError("embeddings: fewer than two items with a vector have a genre")
    nearest_pairs = neighbours.select(
        sf.col("id").alias("left"),
        sf.explode(sf.slice("value", 1, _PAIRS_PER_ITEM)).alias("right"),
    )
    draws = [
        sf.pmod(sf.xxhash64(ITEM, sf.lit(i)), sf.lit(count)).cast("int")
        for i in range(_PAIRS_PER_ITEM)
    ]
    drawn = numbered.select(sf.col(ITEM_ID).alias("left"), sf.explode(sf.array(*draws)).alias(ITEM))
    random_pairs = drawn.join(numbered, ITEM).select("left", sf.col(ITEM_ID).alias("right"))
    pairs = nearest_pairs.withColumn("drawn", sf.lit(False)).unionByName(
        random_pairs.withColumn("drawn", sf.lit(True))
    )
    shares = _shares_with_common_genre(pairs, numbered)
    numbered.unpersist()
    return Metric(value=shares.get(False, 0.0), baselines={"random pairs": shares.get(True, 0.0)})


def _shares_with_common_genre(pairs: DataFrame, genres: DataFrame) -> dict[bool, float]:
    """Return the shares among the drawn pairs and the others, where there are any."""
    left = genres.select(sf.col(ITEM_ID).alias("left"), sf.col("genres").alias("left_genres"))
    right = genres.select(sf.col(ITEM_ID).alias("right"), sf.col("genres").alias("right_genres"))
    overlap = sf.arrays_overlap("left_genres", "right_genres").cast("double")
    both = pairs.where("left != right").join(left, "left").join(right, "right")
    rows = both.groupBy("drawn").agg(sf.avg(overlap).alias("share")).collect()
    return {row["drawn"]: row["share"] for row in rows if row["share"] is not None}
