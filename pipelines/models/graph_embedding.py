"""Graph embedding: skip-gram over random walks on the graph of items that users liked in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from pipelines.errors import DataError
from pipelines.features.schema import ITEM_ID, TIMESTAMP, USER_ID
from pipelines.models.interactions import number_ids
from pipelines.models.random_walks import NODE, item_graph, random_walks
from pipelines.models.skip_gram import SkipGram
from pipelines.models_config import EmbeddingsConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def graph_embedding(positives: DataFrame, config: EmbeddingsConfig, seed: int) -> DataFrame:
    """Return item_id and ``vector`` (array<float> of length 1) of each item that has an edge.

    `positives` has user_id, item_id and timestamp.

    Raises:
        DataError: no user has two different items.
    """
    settings = config.graph
    nodes = number_ids(positives, ITEM_ID, NODE).cache()
    visits = positives.join(nodes, ITEM_ID).select(USER_ID, TIMESTAMP, NODE)
    graph = item_graph(visits, settings.span, settings.max_neighbours).cache()
    size = graph.count()
    if not size:
        raise DataError("graph embedding: no user has two different positive items")
    walks = random_walks(
        graph, settings.walks, settings.walk_length, settings.p, settings.q, seed
    ).select(
        "walk",
        # Mixed anew in each round: items of neighbouring numbers would be learnt in a row.
        sf.xxhash64(sf.lit(seed), "walk", NODE).alias("place"),
        NODE,
        sf.col("path").cast("array<string>").alias("sentence"),
    )
    skip_gram = SkipGram(
        dimension=config.dimension,
        window=settings.window,
        iterations=settings.iterations,
        partitions=config.partitions,
        local_words=config.local_words,
        seed=seed,
    )
    words = size * settings.walks * settings.walk_length
    vectors = skip_gram.fit(walks, ["walk", "place", NODE], words)
    graph.unpersist()
    named = vectors.withColumn(NODE, sf.col("word").cast("int")).join(nodes, NODE)
    return named.select(ITEM_ID, "vector")
