"""Gradient-boosted trees (Friedman 2001, Spark's GBTClassifier with log-loss).

A missing number becomes one that lies below all others, so that a single split tells the missing
ones apart: what imputing together with an indicator would give. Genres go into the trees as the
categories that they are, with one more for missing and unseen ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import GBTClassifier
from pyspark.ml.feature import Imputer, ImputerModel, StringIndexerModel, VectorAssembler
from pyspark.sql import functions as sf

from pipelines.features.schema import LABEL
from pipelines.models.pmml.inputs import PresentInputs, genre_indexer, indexed
from pipelines.models_config import GradientBoostedTreesConfig

if TYPE_CHECKING:
    from pyspark.ml import Estimator, Transformer
    from pyspark.sql import DataFrame

    _Stage = Estimator[Any] | Transformer


def fit(samples: DataFrame, config: GradientBoostedTreesConfig, seed: int) -> PipelineModel:
    """Fit the pipeline to `samples` with a label (double) and the inputs of the PMML.

    Raises:
        DataError: no feature has a value.
    """
    present = PresentInputs.of(samples)
    stages: list[_Stage] = []
    bins = config.bins
    if present.numbers:
        stages.append(_imputer(samples, present.numbers))
    if present.genres:
        genres = genre_indexer(present.genres).fit(samples)
        stages.append(genres)
        bins = max(bins, _most_categories(genres))
    stages += [
        VectorAssembler(
            inputCols=[*_imputed(present.numbers), *indexed(present.genres)], outputCol="features"
        ),
        GBTClassifier(
            labelCol=LABEL,
            maxIter=config.trees,
            maxDepth=config.depth,
            stepSize=config.learning_rate,
            minInstancesPerNode=config.min_leaf_samples,
            maxBins=bins,
            seed=seed,
        ),
    ]
    return Pipeline(stages=stages).fit(samples)


def _imputed(names: Sequence[str]) -> list[str]:
    return [f"{name}_imputed" for name in names]


def _imputer(samples: DataFrame, names: Sequence[str]) -> ImputerModel:
    """Return the stage that puts a number below all others in the place of missing ones."""
    lowest = samples.agg(*[sf.min(name).alias(name) for name in names]).first()
    below = [math.floor(lowest[name]) - 1.0 for name in names] if lowest else []
    # The mean of a single row is that row: so Spark's own stage carries constants.
    constants = samples.sparkSession.createDataFrame([tuple(below)], list(names))
    return Imputer(strategy="mean", inputCols=list(names), outputCols=_imputed(names)).fit(
        constants
    )


def _most_categories(genres: StringIndexerModel) -> int:
    """Return the categories of the genre that has most: Spark needs a bin for each."""
    return max(len(labels) for labels in genres.labelsArray) + 1
