"""Unit `embeddings`: vectors of items and users, and each item's nearest neighbours.

The models are item2vec and a graph embedding; which of them is released is configured. Each is
evaluated on a fit that has not seen the holdout, as a ranking of unseen items by cosine; what is
released is a fit with the same parameters on everything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as sf

from pipelines.errors import DataError
from pipelines.evaluation.ranking import EVALUATED_LENGTH, RECALL, ranking_metrics
from pipelines.features.schema import IS_HOLDOUT, ITEM_ID, TIMESTAMP, USER_ID
from pipelines.models.base import BuildInputs, Built, Metric, Table
from pipelines.models.genre_agreement import genre_agreement
from pipelines.models.graph_embedding import graph_embedding
from pipelines.models.interactions import IS_POSITIVE, ITEM, number_ids, read_events, titles
from pipelines.models.item2vec import item2vec
from pipelines.models.popularity import popularity
from pipelines.models.stored import EVALUATION
from pipelines.models.topn import Candidates, top_unseen
from pipelines.models.user_vectors import user_vectors
from pipelines.models.vector_fit import ListHoldout, VectorFit, list_holdout
from pipelines.models_config import EMBEDDING_MODELS, EmbeddingModel, EmbeddingsConfig
from pipelines.progress import progress

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embeddings:
    """Vectors of length 1 (array<float>): item_id, vector and user_id, vector."""

    items: DataFrame
    users: DataFrame


def fit_embeddings(
    events: DataFrame, model: EmbeddingModel, config: EmbeddingsConfig, seed: int
) -> Embeddings:
    """Fit `model`'s item vectors to the positives among `events`, and derive the users' from them.

    `events` has user_id, item_id, timestamp and is_positive. Items with fewer than
    ``config.min_count`` positives get no vector, nor do users without an item that has one.
    The same events and seed give the same vectors, if ``config.partitions`` is 1.

    Raises:
        DataError: no item has enough positives, or, for a graph, no two of them have a user.
    """
    positives = events.where(IS_POSITIVE).select(USER_ID, ITEM_ID, TIMESTAMP)
    enough = positives.groupBy(ITEM_ID).count().where(sf.col("count") >= config.min_count)
    kept = positives.join(enough.select(ITEM_ID), ITEM_ID).cache()
    if kept.isEmpty():
        raise DataError(
            f"{model}: no item has {config.min_count} positive events (models.embeddings.min_count)"
        )
    match model:
        case "item2vec":
            items = item2vec(kept, config, seed)
        case "graph":
            items = graph_embedding(kept, config, seed)
    return Embeddings(items, user_vectors(kept, items, config.user_half_life_days))


def build(spark: SparkSession, inputs: BuildInputs) -> Built:
    """Evaluate, then make ``item_vectors``, ``user_vectors``, ``neighbours`` and ``titles``.

    Raises:
        DataError: no events, no positive ones, an empty holdout, or fewer than two items with
            a vector.
    """
    config, seed = inputs.config.models.embeddings, inputs.config.seed
    events = read_events(spark, inputs).cache()
    kept = inputs.workdir / EVALUATION
    with progress("embeddings", total=4, unit="steps") as advance:
        advance(0, "fitting for the evaluation")
        fitted = fit_embeddings(events.where(~events[IS_HOLDOUT]), config.model, config, seed)
        advance(1, "evaluating")
        metrics = _evaluate(spark, inputs, events, fitted, kept)
        advance(1, "fitting to release")
        released = fit_embeddings(events, config.model, config, seed)
        items, users = released.items.cache(), released.users
        advance(1, "nearest items")
        neighbours = nearest(items, config.neighbours).cache()
        metrics["neighbours_sharing_a_genre"] = _genre_agreement(spark, inputs, neighbours)
        advance(1)
    for name, metric in metrics.items():
        log.info("embeddings %s: %s", name, metric.describe())
    events.unpersist()
    return Built(
        metrics=metrics,
        params=_params(config, seed),
        tables=[
            Table("item_vectors", "vector", _named(items, ITEM_ID)),
            Table("user_vectors", "vector", _named(users, USER_ID)),
            Table("neighbours", "ids", neighbours),
            Table("titles", "text", titles(spark, inputs)),
        ],
        files={EVALUATION: kept},
    )


def compare(spark: SparkSession, inputs: BuildInputs) -> dict[str, dict[str, Metric]]:
    """Return the metrics of every model on the run's holdout, each as it is configured.

    Here the neighbours are those of the fit that is evaluated: none is made for a release.

    Raises:
        DataError: as :func:`build` does.
    """
    config, seed = inputs.config.models.embeddings, inputs.config.seed
    events = read_events(spark, inputs).cache()
    metrics: dict[str, dict[str, Metric]] = {}
    for model in EMBEDDING_MODELS:
        fitted = fit_embeddings(events.where(~events[IS_HOLDOUT]), model, config, seed)
        neighbours = nearest(fitted.items.cache(), config.neighbours)
        metrics[model] = {
            **_evaluate(spark, inputs, events, fitted, inputs.workdir / model),
            "neighbours_sharing_a_genre": _genre_agreement(spark, inputs, neighbours),
        }
    events.unpersist()
    return metrics


def _params(config: EmbeddingsConfig, seed: int) -> dict[str, object]:
    """Return what the manifest says of the fit: the settings of the chosen model only."""
    shared = config.model_dump(exclude={"enabled", *EMBEDDING_MODELS})
    return {**shared, **getattr(config, config.model).model_dump(), "seed": seed}


def _genre_agreement(spark: SparkSession, inputs: BuildInputs, neighbours: DataFrame) -> Metric:
    return genre_agreement(spark.read.parquet(inputs.paths.items), neighbours)


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
        raise DataError("embeddings: fewer than two items have a vector: there are no neighbours")
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
    spark: SparkSession,
    inputs: BuildInputs,
    events: DataFrame,
    fitted: Embeddings,
    folder: Path,
) -> dict[str, Metric]:
    """Keep in `folder` what is `fitted` to all but the holdout, and measure it."""
    with list_holdout(spark, inputs, events) as holdout:
        items = popularity(holdout.training, holdout.catalogue).join(fitted.items, ITEM_ID, "left")
        fit = VectorFit(fitted.users.withColumnRenamed(USER_ID, "id"), items).keep(folder)
        exact = fit.candidates(holdout.catalogue)
        measured = _measure(holdout, exact, fit.users)
        chance = np.random.default_rng(inputs.config.seed).random(len(exact.ids))
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
    if baselines["random"][RECALL] > 0:
        ratio = measured[RECALL] / baselines["random"][RECALL]
        metrics[f"{RECALL}_over_random"] = Metric(value=ratio, baselines={"random": 1.0})
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
