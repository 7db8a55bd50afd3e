from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from pyspark.sql import functions as sf

from pipelines.models.skip_gram import skip_gram

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: The hash table of each takes a page of 4 MB: together more than the driver has.
_PARTITIONS = 300


@pytest.fixture
def many_partitions(spark: SparkSession) -> Iterator[int]:
    before = str(spark.conf.get("spark.sql.shuffle.partitions"))
    spark.conf.set("spark.sql.shuffle.partitions", str(_PARTITIONS))
    yield _PARTITIONS
    spark.conf.set("spark.sql.shuffle.partitions", before)


def test_the_task_that_sorts_holds_no_hash_tables(
    spark: SparkSession, many_partitions: int
) -> None:
    nodes = spark.range(3000).withColumnRenamed("id", "node")
    graph = nodes.select("node", (sf.col("node") % 10).cast("string").alias("next"))
    known = graph.repartition(many_partitions, "node").cache()
    walks = nodes.join(known.hint("shuffle_hash"), "node").select(
        "node", sf.array(sf.col("node").cast("string"), "next").alias("sentence")
    )
    vectors = skip_gram(walks, ["node"], dimension=2, window=1, iterations=1, partitions=1, seed=1)
    assert vectors.count() == 3000
