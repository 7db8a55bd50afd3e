"""Unit `recs`: the best unseen items of every user, popular ones for all others, similar items.

The users' lists are a blend of ALS, EASE and popularity, with some places for new items.

Evaluated on a fit that has not seen the holdout, on lists as they are served; what is released is
a fit with the same parameters on everything, so that the lists are fresh and leave out all that was
seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from pipelines.evaluation.ranking import (
    EVALUATED_LENGTH,
    TOP_SHARE,
    exposure_metrics,
)
from pipelines.features.schema import ITEM_ID, USER_ID
from pipelines.models.base import BuildInputs, Built, Metric, Table
from pipelines.models.blend import PART, RELEASED, Blend, BlendWeights, choose_weights, grid, half
from pipelines.models.exploration import Exploration, turn
from pipelines.models.interactions import (
    IS_POSITIVE,
    ITEM,
    by_user_and_item,
    read_catalogue,
    read_events,
    seen_items,
    titles,
)
from pipelines.models.list_fit import ListFit
from pipelines.models.measures import Ranking, measure_rankings
from pipelines.models.popularity import popular_lists, popularity
from pipelines.models.stored import EVALUATION
from pipelines.models.topn import top_unseen
from pipelines.models.vector_fit import ListHoldout, list_holdout
from pipelines.progress import progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)

#: The folder of the chosen weights, below the evaluated fit.
_BLEND = "blend"
# Weights that are measured: those to be served, and those that rank by popularity alone.
_SERVED, _BASELINE = "blend", "popularity"


def build(spark: SparkSession, inputs: BuildInputs) -> Built:
    """Evaluate, then make ``user_items``, ``popular``, ``similar_items`` and ``titles``.

    ``user_items`` has a list for each user with an event, ``popular`` one for ``all`` and one for
    each ``genre:<name>``, ``similar_items`` one for each item that somebody liked.

    Raises:
        DataError: no events, no positive ones, an empty holdout, or too little memory for EASE.
    """
    config, seed = inputs.config.models.recs, inputs.config.seed
    events = read_events(spark, inputs)
    kept = inputs.workdir / EVALUATION
    with progress("recs", total=4, unit="steps") as advance:
        advance(0, "fitting for the evaluation")
        with list_holdout(spark, inputs, events) as holdout:
            fit = _fit(inputs, holdout).keep(kept)
            advance(1, "choosing the blend")
            with _evaluation(inputs, holdout, fit) as evaluation:
                weights = evaluation.choose()
                weights.write(kept / _BLEND)
                advance(1, "evaluating")
                measured = evaluation.measure(
                    {_SERVED: weights, _BASELINE: BlendWeights.only("popularity")}
                )
        metrics = _metrics(measured[_SERVED], measured[_BASELINE])
        for name, metric in metrics.items():
            log.info("recs %s: %s", name, metric.describe())
        advance(1, "fitting to release")
        catalogue = read_catalogue(spark, inputs).cache()
        everything = by_user_and_item(events, catalogue).cache()
        released = ListFit.fit(everything, catalogue, config, seed)
        advance(1)
    similar = released.similar(config.similar_items)
    with_genres = catalogue.join(
        spark.read.parquet(inputs.paths.items).select(ITEM_ID, "genres"), ITEM_ID
    )
    popular = popular_lists(
        everything, with_genres, config.popularity.half_life_days, config.list_size
    )
    users = seen_items(everything).join(released.users, "id", "left")
    lists = top_unseen(
        users.select("*", sf.lit(RELEASED).alias(PART), turn(inputs.run_date, seed)),
        released.blend(catalogue, weights),
        config.list_size,
        released.exploration(catalogue, config, inputs.run_date, seed),
    )
    return Built(
        metrics=metrics,
        params={
            **config.model_dump(exclude={"enabled"}),
            "seed": seed,
            "blend": weights.released(),
        },
        tables=[
            Table("user_items", "ids", lists.select("id", "value")),
            Table("popular", "ids", popular),
            Table("similar_items", "ids", similar),
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
    fit = ListFit.read(spark, folder)
    weights = BlendWeights.read(folder / _BLEND)
    with (
        list_holdout(spark, inputs, read_events(spark, inputs)) as holdout,
        _evaluation(inputs, holdout, fit) as evaluation,
    ):
        return evaluation.measure({_SERVED: weights})[_SERVED]


def compare(spark: SparkSession, inputs: BuildInputs) -> dict[str, dict[str, Metric]]:
    """Return the metrics of popularity, als, ease and blend on this run's holdout, by model.

    The blend is as it is served, with its new items. A model that is off is left out.

    Raises:
        DataError: as :func:`build`.
    """
    with list_holdout(spark, inputs, read_events(spark, inputs)) as holdout:
        fit = _fit(inputs, holdout).keep(inputs.workdir / EVALUATION)
        with _evaluation(inputs, holdout, fit) as evaluation:
            config = inputs.config.models.recs
            names = ["popularity"]
            names += [name for name in ("als", "ease") if getattr(config, name).enabled]
            alone = {name: BlendWeights.only(name) for name in names}
            values = evaluation.measure({**alone, _SERVED: evaluation.choose()})
    return {name: _metrics(measured, values[_BASELINE]) for name, measured in values.items()}


def _fit(inputs: BuildInputs, holdout: ListHoldout) -> ListFit:
    return ListFit.fit(
        holdout.training, holdout.catalogue, inputs.config.models.recs, inputs.config.seed
    )


def _metrics(measured: dict[str, float], baseline: dict[str, float]) -> dict[str, Metric]:
    return {
        name: Metric(
            value=value,
            baselines={"popularity": baseline[name]},
            higher_is_better=name != TOP_SHARE,
        )
        for name, value in measured.items()
    }


@dataclass(frozen=True)
class _Evaluation:
    """A fit on a holdout.

    `users` are the holdout's with what the blend reads of them, cached; `likes` [n] how many of the
    `likers` liked each item in training. `blend` has no weights of its own yet.
    """

    users: DataFrame
    likes: NDArray[np.int64]
    likers: int
    length: int
    blend: Blend
    exploration: Exploration | None

    def choose(self) -> BlendWeights:
        """Return the best weights on this holdout."""
        tried = grid(als=self.blend.vectors is not None, ease=self.blend.weights is not None)
        return choose_weights(self.users, self.blend, tried)

    def measure(self, weights: Mapping[str, BlendWeights]) -> dict[str, dict[str, float]]:
        """Return all metrics of the lists that each of these weights gives, by its name.

        What is to be served also shows new items.
        """
        rankings = {
            name: Ranking(
                replace(self.blend, blend=each), self.exploration if name == _SERVED else None
            )
            for name, each in weights.items()
        }
        measured = measure_rankings(self.users, rankings, self.length)
        return {
            name: {**found.metrics, **exposure_metrics(found.listed, self.likes, self.likers)}
            for name, found in measured.items()
        }


@contextmanager
def _evaluation(inputs: BuildInputs, holdout: ListHoldout, fit: ListFit) -> Iterator[_Evaluation]:
    config, seed = inputs.config.models.recs, inputs.config.seed
    users = (
        holdout.users.join(fit.users, "id", "left")
        .select("*", half(), turn(inputs.run_date, seed))
        .cache()
    )
    liked = popularity(holdout.training, holdout.catalogue).select(ITEM, "popularity")
    likes = liked.toArrow().sort_by(ITEM)["popularity"].to_numpy()
    likers = holdout.training.where(IS_POSITIVE).select(USER_ID).distinct().count()
    try:
        yield _Evaluation(
            users,
            likes,
            likers,
            max(EVALUATED_LENGTH, config.list_size),
            fit.blend(holdout.catalogue, BlendWeights.only("popularity")),
            fit.exploration(holdout.catalogue, config, inputs.run_date, seed),
        )
    finally:
        users.unpersist()
