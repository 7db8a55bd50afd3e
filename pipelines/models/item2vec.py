"""item2vec (Barkan, Koenigstein 2016): skip-gram over each user's positives in time order.

Vectors have length 1, so that a dot product is a cosine. A user's vector is the mean of the
vectors of their positive items, each weighted by 2 to the power of minus its age in half-lives:
what somebody liked lately says more than what they liked years ago.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.ml.feature import Normalizer, Word2Vec
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.ml.stat import Summarizer
from pyspark.sql import functions as sf

from pipelines.errors import DataError
from pipelines.features.schema import ITEM_ID, TIMESTAMP, USER_ID
from pipelines.models.interactions import IS_POSITIVE
from pipelines.models_config import EmbeddingsConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class Embeddings:
    """Vectors of length 1 (array<float>): item_id, vector and user_id, vector."""

    items: DataFrame
    users: DataFrame


def fit_embeddings(events: DataFrame, config: EmbeddingsConfig, seed: int) -> Embeddings:
    """Fit item vectors to the positives among `events`, and derive the users' from them.

    `events` has user_id, item_id, timestamp and is_positive. Items with fewer than
    ``config.min_count`` positives get no vector, nor do users without an item that has one.
    The same events and seed give the same vectors: one partition, in the order of the user ids.

    Raises:
        DataError: no item has enough positives.
    """
    positives = events.where(IS_POSITIVE).withColumn("word", sf.col(ITEM_ID).cast("string"))
    moment = sf.struct(TIMESTAMP, "word")
    sentences = (
        positives.groupBy(USER_ID)
        .agg(sf.array_sort(sf.collect_list(moment)).alias("moments"))
        .select(USER_ID, sf.col("moments.word").alias("sentence"))
        .coalesce(1)
        .sortWithinPartitions(USER_ID)
    )
    enough = positives.groupBy("word").count().where(sf.col("count") >= config.min_count)
    if enough.isEmpty():
        raise DataError(
            f"item2vec: no item has {config.min_count} positive events "
            "(models.embeddings.min_count)"
        )
    model = Word2Vec(
        vectorSize=config.dimension,
        windowSize=config.window,
        maxIter=config.iterations,
        minCount=config.min_count,
        numPartitions=1,
        seed=seed,
        inputCol="sentence",
        outputCol="unused",
    ).fit(sentences)
    item_type = events.schema[ITEM_ID].dataType
    items = _normalised(
        model.getVectors().select(sf.col("word").cast(item_type).alias(ITEM_ID), "vector"), ITEM_ID
    )
    return Embeddings(items, _user_vectors(positives, items, config.user_half_life_days))


def _normalised(frame: DataFrame, key: str) -> DataFrame:
    """Return `key` and ``vector`` (array<float> of length 1), from a column of Spark's vectors."""
    unit = Normalizer(inputCol="vector", outputCol="unit").transform(frame)
    return unit.select(key, vector_to_array(sf.col("unit"), "float32").alias("vector"))


def _user_vectors(positives: DataFrame, items: DataFrame, half_life_days: float) -> DataFrame:
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
    return _normalised(weighted.groupBy(USER_ID).agg(mean.alias("vector")), USER_ID)
