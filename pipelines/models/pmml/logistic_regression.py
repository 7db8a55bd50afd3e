"""Logistic regression over bucketed numbers and one-hot genres.

Numbers are imputed by their median, then given to the regression twice: scaled, for what rises
evenly, and in quantile buckets, for what does not. Genres are one-hot by place, with one more
category for missing and unseen ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import (
    Imputer,
    OneHotEncoder,
    QuantileDiscretizer,
    StandardScaler,
    VectorAssembler,
)

from pipelines.features.schema import LABEL
from pipelines.models.pmml.inputs import PresentInputs, genre_indexer, indexed
from pipelines.models_config import LogisticRegressionConfig

if TYPE_CHECKING:
    from pyspark.ml import Estimator, Transformer
    from pyspark.sql import DataFrame

    _Stage = Estimator[Any] | Transformer


def fit(samples: DataFrame, config: LogisticRegressionConfig) -> PipelineModel:
    """Fit the pipeline to `samples` with a label (double) and the inputs of the PMML.

    Raises:
        DataError: no feature has a value.
    """
    present = PresentInputs.of(samples)
    stages: list[_Stage] = [
        *(_number_stages(present.numbers, config.buckets) if present.numbers else []),
        *(_genre_stages(present.genres) if present.genres else []),
        VectorAssembler(
            inputCols=[
                *(["scaled"] if present.numbers else []),
                *_onehot((*present.numbers, *present.genres)),
            ],
            outputCol="features",
        ),
        LogisticRegression(
            labelCol=LABEL, regParam=config.regularization, maxIter=config.iterations
        ),
    ]
    return Pipeline(stages=stages).fit(samples)


def _onehot(names: Sequence[str]) -> list[str]:
    return [f"{name}_onehot" for name in names]


def _number_stages(names: Sequence[str], buckets: int) -> list[_Stage]:
    imputed = [f"{name}_imputed" for name in names]
    bucketed = [f"{name}_bucket" for name in names]
    return [
        Imputer(strategy="median", inputCols=list(names), outputCols=imputed),
        VectorAssembler(inputCols=imputed, outputCol="numbers"),
        StandardScaler(withMean=True, inputCol="numbers", outputCol="scaled"),
        QuantileDiscretizer(
            numBucketsArray=[buckets] * len(names), inputCols=imputed, outputCols=bucketed
        ),
        OneHotEncoder(dropLast=False, inputCols=bucketed, outputCols=_onehot(names)),
    ]


def _genre_stages(names: Sequence[str]) -> list[_Stage]:
    return [
        genre_indexer(names),
        OneHotEncoder(dropLast=False, inputCols=indexed(names), outputCols=_onehot(names)),
    ]
