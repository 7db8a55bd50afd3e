"""Unit `recs`: the best unseen items of every user by implicit ALS, popularity for all others.

Evaluated on a fit that has not seen the holdout; what is released is a fit with the same
parameters on everything, so that the lists are fresh and leave out all that was seen.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql.types import StringType, StructField, StructType

from pipelines.evaluation.ranking import EVALUATED_LENGTH, coverage, ranking_metrics
from pipelines.features.schema import ITEM_ID, USER_ID
from pipelines.models.als import fit_factors
from pipelines.models.base import BuildInputs, Built, Metric, Table
from pipelines.models.interactions import (
    ITEM,
    by_user_and_item,
    read_catalogue,
    read_events,
    seen_items,
    titles,
)
from pipelines.models.popularity import popularity
from pipelines.models.stored import EVALUATION
from pipelines.models.topn import Candidates, top_unseen
from pipelines.models.vector_fit import ListHoldout, VectorFit, list_holdout
from pipelines.models_config import RecsConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)


def build(spark: SparkSession, inputs: BuildInputs) -> Built:
    """Evaluate, then make the tables ``user_items``, ``popular`` and ``titles``.

    Raises:
        DataError: no events, no positive ones, or an empty holdout.
    """
    config, seed = inputs.config.models.recs, inputs.config.seed
    events = read_events(spark, inputs)
    kept = inputs.workdir / EVALUATION
    metrics = _evaluate(spark, inputs, events, kept)
    for name, metric in metrics.items():
        log.info("recs %s: %s", name, metric.describe())

    catalogue = read_catalogue(spark, inputs).cache()
    everything = by_user_and_item(events, catalogue).cache()
    fit = _fit(everything, catalogue, config, seed)
    candidates = fit.candidates(catalogue)
    lists = top_unseen(
        seen_items(everything).join(fit.users, "id", "left"), candidates, config.list_size
    )
    popular = spark.createDataFrame(
        [("all", candidates.best(config.list_size).to_pylist())],
        StructType([StructField("id", StringType()), lists.schema["value"]]),
    )
    return Built(
        metrics=metrics,
        params={**config.model_dump(exclude={"enabled"}), "seed": seed},
        tables=[
            Table("user_items", "ids", lists.select("id", "value")),
            Table("popular", "ids", popular),
            Table("titles", "text", titles(spark, inputs)),
        ],
        files={EVALUATION: kept},
    )


def evaluate_stored(spark: SparkSession, inputs: BuildInputs, folder: Path) -> dict[str, float]:
    """Return the metrics of the fit in `folder`, of this or another run, on this run's holdout.

    Users that the fit does not know get the items that were popular to it, as at serving time.

    Raises:
        DataError: an empty holdout, or a metric that is not finite.
    """
    fit = VectorFit.read(spark, folder)
    with list_holdout(spark, inputs, read_events(spark, inputs)) as holdout:
        return _measure(inputs, holdout, fit.candidates(holdout.catalogue), fit.users)


def _fit(pairs: DataFrame, catalogue: DataFrame, config: RecsConfig, seed: int) -> VectorFit:
    factors = fit_factors(pairs, config, seed)
    items = popularity(pairs, catalogue).join(factors.items, ITEM, "left")
    return VectorFit(
        factors.users.withColumnRenamed(USER_ID, "id"),
        items.select(ITEM_ID, "popularity", "vector"),
    )


def _evaluate(
    spark: SparkSession, inputs: BuildInputs, events: DataFrame, folder: Path
) -> dict[str, Metric]:
    """Fit to what is not holdout, keep that fit in `folder`, and measure it."""
    config, seed = inputs.config.models.recs, inputs.config.seed
    with list_holdout(spark, inputs, events) as holdout:
        fit = _fit(holdout.training, holdout.catalogue, config, seed).keep(folder)
        candidates = fit.candidates(holdout.catalogue)
        measured, popular = (
            _measure(inputs, holdout, items, fit.users)
            for items in (candidates, candidates.by_popularity())
        )
    return {
        name: Metric(value=value, baselines={"popularity": popular[name]})
        for name, value in measured.items()
    }


def _measure(
    inputs: BuildInputs, holdout: ListHoldout, candidates: Candidates, vectors: DataFrame
) -> dict[str, float]:
    length = max(EVALUATED_LENGTH, inputs.config.models.recs.list_size)
    lists = holdout.lists(candidates, vectors, length).cache()
    metrics = {
        **ranking_metrics(lists, holdout.users),
        "coverage": coverage(lists, len(candidates.ids)),
    }
    lists.unpersist()
    return metrics
