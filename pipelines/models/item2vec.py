"""item2vec (Barkan, Koenigstein 2016): skip-gram over each user's positives in time order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from pipelines.features.schema import ITEM_ID, TIMESTAMP, USER_ID
from pipelines.models.skip_gram import SkipGram
from pipelines.models_config import EmbeddingsConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def item2vec(positives: DataFrame, words: int, config: EmbeddingsConfig, seed: int) -> DataFrame:
    """Return item_id and ``vector`` (array<float> of length 1) of each item of `positives`.

    `positives` has user_id, item_id and timestamp, in `words` rows.
    """
    word = sf.col(ITEM_ID).cast("string").alias("word")
    sentences = (
        positives.groupBy(USER_ID)
        .agg(sf.array_sort(sf.collect_list(sf.struct(TIMESTAMP, word))).alias("moments"))
        .select(USER_ID, sf.col("moments.word").alias("sentence"))
    )
    settings = SkipGram(
        dimension=config.dimension,
        window=config.item2vec.window,
        iterations=config.item2vec.iterations,
        partitions=config.partitions,
        local_words=config.local_words,
        seed=seed,
    )
    vectors = settings.fit(sentences, [USER_ID], words)
    item_type = positives.schema[ITEM_ID].dataType
    return vectors.select(sf.col("word").cast(item_type).alias(ITEM_ID), "vector")
