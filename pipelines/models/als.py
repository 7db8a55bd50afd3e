"""Matrix factorisation for implicit feedback (Hu, Koren, Volinsky 2008), by Spark's ALS.

Only positive events are given to it, each with the confidence 1 + alpha: on explicit ratings the
low ones say "watched, did not like", which a preference of 1 would turn into the opposite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.ml.recommendation import ALS
from pyspark.sql import functions as sf

from pipelines.features.schema import USER_ID
from pipelines.models.interactions import IS_POSITIVE, ITEM, number_ids
from pipelines.models_config import AlsConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_PAIRS_PER_BLOCK = 1_000_000


@dataclass(frozen=True)
class Factors:
    """Vectors (array<float>) of what had a positive event: user_id, vector and item, vector."""

    users: DataFrame
    items: DataFrame


def fit_factors(pairs: DataFrame, config: AlsConfig, seed: int) -> Factors:
    """Fit user and item factors of ``config.rank`` components to the positive `pairs`.

    `pairs` has user_id, item and is_positive, one row a pair. The same pairs and seed give the
    same factors: ALS draws its start per block and sums in the order of its input, so both the
    number of blocks and the order are made to depend on the data alone.
    """
    positives = pairs.where(IS_POSITIVE)
    numbers = number_ids(positives, USER_ID, "user").cache()
    blocks = 2 + positives.count() // _PAIRS_PER_BLOCK
    ordered = (
        positives.join(numbers, USER_ID)
        .select("user", ITEM, sf.lit(1.0).alias("preference"))
        .repartition(blocks, "user")
        .sortWithinPartitions("user", ITEM)
    )
    als = ALS(
        rank=config.rank,
        maxIter=config.iterations,
        regParam=config.regularization,
        alpha=config.alpha,
        implicitPrefs=True,
        numUserBlocks=blocks,
        numItemBlocks=blocks,
        userCol="user",
        itemCol=ITEM,
        ratingCol="preference",
        seed=seed,
    )
    model = als.fit(ordered)
    vectors = model.userFactors.withColumnRenamed("features", "vector")
    users = vectors.join(numbers, vectors.id == numbers.user).select(USER_ID, "vector")
    items = model.itemFactors.select(sf.col("id").alias(ITEM), sf.col("features").alias("vector"))
    return Factors(users, items)
