"""A user's vector: the mean of the vectors of what they liked, recent items weighing more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.ml.functions import array_to_vector
from pyspark.ml.stat import Summarizer
from pyspark.sql import functions as sf

from pipelines.features.schema import ITEM_ID, TIMESTAMP, USER_ID
from pipelines.models.skip_gram import normalised

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_SECONDS_PER_DAY = 86_400.0


def user_vectors(positives: DataFrame, items: DataFrame, half_life_days: float) -> DataFrame:
    """Return user_id and ``vector`` (array<float> of length 1); users without items have none.

    `positives` has user_id, item_id and timestamp; `items` item_id and vector. Each vector is
    weighted by 2 to the power of minus its age in half-lives.
    """
    newest = positives.groupBy(USER_ID).agg(sf.max(TIMESTAMP).alias("newest"))
    # Age is counted from the user's own newest positive: the direction of the mean is the same,
    # and the weights of somebody who left long ago don't all become zero.
    age = (sf.unix_timestamp("newest") - sf.unix_timestamp(TIMESTAMP)) / _SECONDS_PER_DAY
    weighted = (
        positives.join(newest, USER_ID)
        .join(items, ITEM_ID)
        .select(
            USER_ID,
            TIMESTAMP,
            ITEM_ID,
            sf.pow(sf.lit(0.5), age / half_life_days).alias("weight"),
            array_to_vector(sf.col("vector")).alias("vector"),
        )
        # Sums of floats depend on their order: it is made the data's own.
        .repartition(USER_ID)
        .sortWithinPartitions(USER_ID, TIMESTAMP, ITEM_ID)
    )
    mean = Summarizer.mean(weighted["vector"], weighted["weight"])
    return normalised(weighted.groupBy(USER_ID).agg(mean.alias("vector")), USER_ID)
