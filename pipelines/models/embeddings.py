"""Unit `embeddings`: vectors of items and users, and each item's nearest neighbours.

The models are item2vec and a graph embedding; which of them is released is configured. Each is
evaluated on a fit that has not seen the holdout, as a ranking of unseen items by cosine; what is
released is a fit with the same parameters on everything.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as sf

from pipelines.errors import DataError
from pipelines.evaluation.ranking import RECALL
from pipelines.features.schema import IS_HOLDOUT, ITEM_ID, TIMESTAMP, USER_ID
from pipelines.models.base import BuildInputs, Built, Metric, Table
from pipelines.models.genre_agreement import genre_agreement
from pipelines.models.graph_embedding import graph_embedding
from pipelines.models.interactions import IS_POSITIVE, ITEM, number_ids, read_events, titles
from pipelines.models.item2vec import item2vec
from pipelines.models.measures import measure_scorers
from pipelines.models.popularity import popularity
from pipelines.models.stored import EVALUATION
from pipelines.models.topn import Candidates, top_unseen
from pipelines.models.user_vectors import user_vectors
from pipelines.models.vector_fit import VectorFit, list_holdout
from pipelines.models_config import EMBEDDING_MODELS, EmbeddingModel, EmbeddingsConfig
from pipelines.progress import progress

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)

# The scorers of an evaluation that are no baselines.
_MEASURED, _STORED = "measured", "stored"


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
    The same events and seed give the same vectors, unless Spark fits them
    (``config.local_words``) and ``config.partitions`` is above 1.

    Raises:
        DataError: no item has enough positives, or, for a graph, no two of them have a user.
    """
    positives = events.where(IS_POSITIVE).select(USER_ID, ITEM_ID, TIMESTAMP)
    enough = positives.groupBy(ITEM_ID).count().where(sf.col("count") >= config.min_count)
    kept = positives.join(enough.select(ITEM_ID), ITEM_ID).cache()
    words = kept.count()
    if not words:
        raise DataError(
            f"{model}: no item has {config.min_count} positive events (models.embeddings.min_count)"
        )
    match model:
        case "item2vec":
            items = item2vec(kept, words, config, seed)
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
    numbered = items.join(number_ids(items, ITEM_ID, ITEM), ITEM_ID).cache()
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
        users = holdout.users.join(fit.users, "id", "left")
        scorers = {_MEASURED: fit.candidates(holdout.catalogue)}
        return measure_scorers(users, scorers)[_MEASURED]


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
        chance = np.random.default_rng(inputs.config.seed).random(len(exact.ids))
        found = measure_scorers(
            holdout.users.join(fit.users, "id", "left"),
            {
                _MEASURED: exact,
                "popularity": exact.by_popularity(),
                "random": exact.by_popularity(chance),
                _STORED: AsStored.of(exact),
            },
        )
    measured, stored = found.pop(_MEASURED), found.pop(_STORED)
    metrics = {
        name: Metric(value=value, baselines={n: b[name] for n, b in found.items()})
        for name, value in measured.items()
    }
    if found["random"][RECALL] > 0:
        ratio = measured[RECALL] / found["random"][RECALL]
        metrics[f"{RECALL}_over_random"] = Metric(value=ratio, baselines={"random": 1.0})
    metrics[f"{RECALL}_as_stored"] = Metric(
        value=stored[RECALL], baselines={"float32": measured[RECALL]}
    )
    return metrics


@dataclass(frozen=True)
class AsStored:
    """Scores as `exact` does, with all vectors rounded to what Redis stores: float16."""

    rounded: Candidates
    columns: ClassVar[tuple[str, ...]] = Candidates.columns

    @classmethod
    def of(cls, exact: Candidates) -> AsStored:
        """Round the items' vectors."""
        return cls(replace(exact, vectors=_as_float16(exact.vectors)))

    @property
    def ids(self) -> pa.Array:
        """Return the items' ids [n]."""
        return self.rounded.ids

    def scores(self, users: pa.RecordBatch) -> NDArray[np.float32]:
        """Return the scores [users, n], of the users' rounded vectors."""
        lists = users["vector"]
        flat = lists.flatten().to_numpy(zero_copy_only=False)
        lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        rounded = pa.ListArray.from_arrays(
            offsets, pa.array(_as_float16(flat)), mask=lists.is_null()
        )
        place = users.schema.get_field_index("vector")
        return self.rounded.scores(users.set_column(place, "vector", rounded))


def _as_float16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.astype(np.float16).astype(np.float32)
