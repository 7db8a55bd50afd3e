"""Unit `recs`: the best unseen items of every user by implicit ALS, popularity for all others.

Evaluated on a fit that has not seen the holdout; what is released is a fit with the same
parameters on everything, so that the lists are fresh and leave out all that was seen.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pyspark.sql.types import StringType, StructField, StructType

from pipelines.config import RecsConfig
from pipelines.evaluation.ranking import (
    EVALUATED_LENGTH,
    coverage,
    holdout_users,
    ranking_metrics,
)
from pipelines.features.schema import IS_HOLDOUT, ITEM_ID, USER_ID
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
from pipelines.models.topn import Candidates, top_unseen

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
    catalogue = read_catalogue(spark, inputs).cache()
    training = by_user_and_item(events.where(~events[IS_HOLDOUT]), catalogue).cache()
    holdout = by_user_and_item(events.where(IS_HOLDOUT), catalogue)
    metrics = _evaluate(training, holdout, catalogue, config, seed)
    for name, metric in metrics.items():
        log.info("recs %s: %s", name, metric.describe())
    training.unpersist()

    everything = by_user_and_item(events, catalogue).cache()
    users, candidates = _fit(everything, catalogue, config, seed)
    lists = top_unseen(
        seen_items(everything).join(users, "id", "left"), candidates, config.list_size
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
    )


def _fit(
    pairs: DataFrame, catalogue: DataFrame, config: RecsConfig, seed: int
) -> tuple[DataFrame, Candidates]:
    """Return the users' vectors (id, vector) and the candidates with theirs."""
    factors = fit_factors(pairs, config, seed)
    items = popularity(pairs, catalogue).join(factors.items, ITEM, "left")
    users = factors.users.withColumnRenamed(USER_ID, "id")
    return users, Candidates.collect(items, ITEM_ID)


def _evaluate(
    training: DataFrame, holdout: DataFrame, catalogue: DataFrame, config: RecsConfig, seed: int
) -> dict[str, Metric]:
    users = holdout_users(training, holdout).cache()
    vectors, candidates = _fit(training, catalogue, config, seed)
    length = max(EVALUATED_LENGTH, config.list_size)
    measured = {}
    for name, items in (("als", candidates), ("popularity", candidates.by_popularity())):
        lists = top_unseen(users.join(vectors, "id", "left"), items, length).cache()
        measured[name] = {
            **ranking_metrics(lists, users),
            "coverage": coverage(lists, len(candidates.ids)),
        }
        lists.unpersist()
    users.unpersist()
    return {
        name: Metric(value=value, baselines={"popularity": measured["popularity"][name]})
        for name, value in measured["als"].items()
    }
