from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as sf

from pipelines.models.skip_gram import SkipGram

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: The hash table of each takes a page of 4 MB: together more than the driver has.
_PARTITIONS = 300
_SMALL = SkipGram(dimension=4, window=3, iterations=2, partitions=1, local_words=100_000, seed=1)
#: More than one batch of 10,000 words, and one sentence that is cut.
_SENTENCES = [[str(n * n % 97) for n in range(start, start + 50)] for start in range(300)]
_SENTENCES.append(["a", "b", "é"] * 5_000)


@pytest.fixture
def many_partitions(spark: SparkSession) -> Iterator[int]:
    before = str(spark.conf.get("spark.sql.shuffle.partitions"))
    spark.conf.set("spark.sql.shuffle.partitions", str(_PARTITIONS))
    yield _PARTITIONS
    spark.conf.set("spark.sql.shuffle.partitions", before)


@pytest.mark.parametrize("local_words", [0, 100_000])
def test_the_task_that_sorts_holds_no_hash_tables(
    spark: SparkSession, many_partitions: int, local_words: int
) -> None:
    nodes = spark.range(3000).withColumnRenamed("id", "node")
    graph = nodes.select("node", (sf.col("node") % 10).cast("string").alias("next"))
    known = graph.repartition(many_partitions, "node").cache()
    walks = nodes.join(known.hint("shuffle_hash"), "node").select(
        "node", sf.array(sf.col("node").cast("string"), "next").alias("sentence")
    )
    settings = SkipGram(2, 1, 1, 1, local_words, seed=1)
    assert settings.fit(walks, ["node"], words=6000).count() == 3000


def _printed_vectors() -> bytes:
    table = _SMALL.local_vectors(pa.array(_SENTENCES))
    return repr(table.to_pydict()).encode()


def test_the_same_sentences_and_seed_give_the_same_vectors_in_any_process() -> None:
    code = "from tests.models import test_skip_gram as t; print(t._printed_vectors().decode())"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert other.stdout.strip() == _printed_vectors(), other.stderr.decode()
    third = SkipGram(4, 3, 2, 1, 0, seed=-2).local_vectors(pa.array(_SENTENCES))
    assert repr(third.to_pydict()).encode() != other.stdout.strip()


def test_words_that_stand_together_are_close_and_no_place_is_left_out() -> None:
    """The last sentence is longer than what gensim takes at once."""
    settings = SkipGram(8, 2, 5, 1, 0, seed=1)
    sentences = [["a", "b"] * 8_000 + ["c", "d"] * 8_000]
    table = settings.local_vectors(pa.array(sentences))
    vectors = dict(
        zip(table["word"].to_pylist(), map(np.array, table["vector"].to_pylist()), strict=True)
    )
    assert set(vectors) == set("abcd")
    assert np.linalg.norm(list(vectors.values()), axis=1) == pytest.approx(1.0, abs=1e-6)
    assert vectors["a"] @ vectors["b"] > vectors["a"] @ vectors["c"]
    assert vectors["c"] @ vectors["d"] > vectors["d"] @ vectors["b"]


def test_a_word_alone_keeps_its_first_vector() -> None:
    table = _SMALL.local_vectors(pa.array([["a"], ["a", "a"]]))
    assert table["word"].to_pylist() == ["a"]
    assert np.linalg.norm(table["vector"].to_pylist()[0]) == pytest.approx(1.0)
