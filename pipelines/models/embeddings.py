"""Unit `embeddings`: item2vec vectors of items and users, and each item's nearest neighbours.

Evaluated on a fit that has not seen the holdout, as a ranking of unseen items by cosine; what is
released is a fit with the same parameters on everything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as sf

from pipelines.errors import DataError
from pipelines.evaluation.ranking import EVALUATED_LENGTH, RECALL, ranking_metrics
from pipelines.features.schema import IS_HOLDOUT, ITEM_ID, USER_ID
from pipelines.models.base import BuildInputs, Built, Metric, Table
from pipelines.models.interactions import ITEM, number_ids, read_events, titles
from pipelines.models.item2vec import fit_embeddings
from pipelines.models.popularity import popularity
from pipelines.models.stored import EVALUATION
from pipelines.models.topn import Candidates, top_unseen
from pipelines.models.vector_fit import ListHoldout, VectorFit, list_holdout

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)

#: Neighbours looked at, and random partners drawn, for each item in the comparison of genres.
_PAIRS_PER_ITEM = 10


def build(spark: SparkSession, inputs: BuildInputs) -> Built:
    """Evaluate, then make ``item_vectors``, ``user_vectors``, ``neighbours`` and ``titles``.

    Raises:
        DataError: no events, no positive ones, an empty holdout, or fewer than two items with
            enough positives.
    """
    config, seed = inputs.config.models.embeddings, inputs.config.seed
    events = read_events(spark, inputs).cache()
    kept = inputs.workdir / EVALUATION
    metrics = _evaluate(spark, inputs, events, kept)

    released = fit_embeddings(events, config, seed)
    items, users = released.items.cache(), released.users
    neighbours = nearest(items, config.neighbours).cache()
    metrics["neighbours_sharing_a_genre"] = _genre_agreement(spark, inputs, neighbours)
    for name, metric in metrics.items():
        log.info("embeddings %s: %s", name, metric.describe())
    events.unpersist()
    return Built(
        metrics=metrics,
        params={**config.model_dump(exclude={"enabled"}), "seed": seed},
        tables=[
            Table("item_vectors", "vector", _named(items, ITEM_ID)),
            Table("user_vectors", "vector", _named(users, USER_ID)),
            Table("neighbours", "ids", neighbours),
            Table("titles", "text", titles(spark, inputs)),
        ],
        files={EVALUATION: kept},
    )


def _named(vectors: DataFrame, key: str) -> DataFrame:
    return vectors.select(sf.col(key).alias("id"), sf.col("vector").alias("value"))


def nearest(items: DataFrame, size: int) -> DataFrame:
    """Return ``id`` and ``value``: each item's `size` nearest by cosine, most similar first.

    `items` has item_id and vector (array<float> of length 1). An item is not its own neighbour.

    Raises:
        DataError: there are fewer than two items.
    """
    numbered = items.join(number_ids(items, ITEM_ID, ITEM), ITEM_ID)
    candidates = Candidates.collect(numbered.withColumn("popularity", sf.lit(0)), ITEM_ID)
    if len(candidates.ids) < 2:
        raise DataError("item2vec: fewer than two items have a vector: there are no neighbours")
    rows = numbered.select(
        sf.col(ITEM_ID).alias("id"), "vector", sf.array(sf.col(ITEM)).alias("seen")
    )
    return top_unseen(rows, candidates, size).select("id", "value")


def evaluate_stored(spark: SparkSession, inputs: BuildInputs, folder: Path) -> dict[str, float]:
    """Return the ranking metrics of the fit in `folder`, of this or another run, on this holdout.

    Raises:
        DataError: an empty holdout, or a metric that is not finite.
    """
    fit = VectorFit.read(spark, folder)
    with list_holdout(spark, inputs, read_events(spark, inputs)) as holdout:
        return _measure(holdout, fit.candidates(holdout.catalogue), fit.users)


def _measure(holdout: ListHoldout, candidates: Candidates, vectors: DataFrame) -> dict[str, float]:
    return ranking_metrics(holdout.lists(candidates, vectors, EVALUATED_LENGTH), holdout.users)


def _evaluate(
    spark: SparkSession, inputs: BuildInputs, events: DataFrame, folder: Path
) -> dict[str, Metric]:
    """Fit to what is not holdout, keep that fit in `folder`, and measure it."""
    config, seed = inputs.config.models.embeddings, inputs.config.seed
    fitted = fit_embeddings(events.where(~events[IS_HOLDOUT]), config, seed)
    with list_holdout(spark, inputs, events) as holdout:
        items = popularity(holdout.training, holdout.catalogue).join(fitted.items, ITEM_ID, "left")
        fit = VectorFit(fitted.users.withColumnRenamed(USER_ID, "id"), items).keep(folder)
        exact = fit.candidates(holdout.catalogue)
        measured = _measure(holdout, exact, fit.users)
        chance = np.random.default_rng(seed).random(len(exact.ids))
        baselines = {
            "popularity": _measure(holdout, exact.by_popularity(), fit.users),
            "random": _measure(holdout, exact.by_popularity(chance), fit.users),
        }
        rounded = replace(exact, vectors=exact.vectors.astype(np.float16).astype(np.float32))
        users = fit.users.mapInArrow(_as_float16, fit.users.schema)
        stored = _measure(holdout, rounded, users)
    metrics = {
        name: Metric(value=value, baselines={n: b[name] for n, b in baselines.items()})
        for name, value in measured.items()
    }
    metrics[f"{RECALL}_as_stored"] = Metric(
        value=stored[RECALL], baselines={"float32": measured[RECALL]}
    )
    return metrics


def _as_float16(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Round the vectors to what Redis stores."""
    for batch in batches:
        vectors = batch["vector"]
        flat = vectors.flatten().to_numpy(zero_copy_only=False)
        values = pa.array(flat.astype(np.float16).astype(np.float32))
        lengths = vectors.value_lengths().to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        rounded = pa.ListArray.from_arrays(offsets, values)
        yield pa.RecordBatch.from_arrays([batch["id"], rounded], ["id", "vector"])


def _genre_agreement(spark: SparkSession, inputs: BuildInputs, neighbours: DataFrame) -> Metric:
    """Return the share of nearest neighbours with a common genre, beside that of random pairs."""
    genres = (
        spark.read.parquet(inputs.paths.items)
        .where(sf.size("genres") > 0)
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
    shares = [_share_with_common_genre(p, numbered) for p in (nearest_pairs, random_pairs)]
    numbered.unpersist()
    return Metric(value=shares[0], baselines={"random pairs": shares[1]})


def _share_with_common_genre(pairs: DataFrame, genres: DataFrame) -> float:
    left = genres.select(sf.col(ITEM_ID).alias("left"), sf.col("genres").alias("left_genres"))
    right = genres.select(sf.col(ITEM_ID).alias("right"), sf.col("genres").alias("right_genres"))
    overlap = sf.arrays_overlap("left_genres", "right_genres").cast("double")
    both = pairs.where("left != right").join(left, "left").join(right, "right")
    row = both.agg(sf.avg(overlap)).first()
    return float(row[0]) if row and row[0] is not None else 0.0
