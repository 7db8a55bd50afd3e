"""The step that item2vec and graph embeddings share: skip-gram vectors from sequences of items.

Vectors have length 1, so that a dot product is a cosine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.ml.feature import Normalizer, Word2Vec
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as sf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame


def skip_gram(
    sequences: DataFrame,
    order: Sequence[str],
    *,
    dimension: int,
    window: int,
    iterations: int,
    partitions: int,
    seed: int,
) -> DataFrame:
    """Return ``word`` and ``vector`` (array<float> of length 1) for each word of `sequences`.

    `sequences` has ``sentence`` (array<string>) and the columns `order`, by which its rows are put
    in one order. With one partition the same rows and seed give the same vectors. With more it is
    faster, but no longer so: Spark's tasks write to arrays that those of one executor share.
    """
    # One task only sorts: Spark deals the rows out to its partitions itself, one after the other.
    # Merely coalesced it would also do all that comes before, and hold the hash tables of every
    # partition's joins until its end: with hundreds of partitions more than a driver has.
    ordered = sequences.repartition(1).sortWithinPartitions(*order)
    model = Word2Vec(
        vectorSize=dimension,
        windowSize=window,
        maxIter=iterations,
        minCount=1,
        numPartitions=partitions,
        seed=seed,
        inputCol="sentence",
        outputCol="unused",
    ).fit(ordered)
    return normalised(model.getVectors(), "word")


def normalised(frame: DataFrame, key: str) -> DataFrame:
    """Return `key` and ``vector`` (array<float> of length 1), from a column of Spark's vectors."""
    unit = Normalizer(inputCol="vector", outputCol="unit").transform(frame)
    return unit.select(key, vector_to_array(sf.col("unit"), "float32").alias("vector"))
