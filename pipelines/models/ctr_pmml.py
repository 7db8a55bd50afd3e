"""Unit `ctr_pmml`: logistic regression over the point-in-time features, exported as PMML.

Numbers are imputed by their median, then given to the regression twice: scaled, for what rises
evenly, and in quantile buckets, for what does not. Genres are one-hot by place, with one more
category for missing and unseen ones. The ids of recently liked items are left out: a linear model
can't relate them to the candidate.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import (
    Imputer,
    OneHotEncoder,
    QuantileDiscretizer,
    StandardScaler,
    StringIndexer,
    VectorAssembler,
)
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as sf
from pyspark.sql.types import StructType

from pipelines.errors import DataError
from pipelines.evaluation.scores import (
    ITEM_COUNT,
    USER_COUNT,
    Scored,
    score_baselines,
    score_metrics,
    score_values,
)
from pipelines.features.schema import (
    GENRES,
    IS_HOLDOUT,
    ITEM_ID,
    LABEL,
    NUMBERS,
    TIMESTAMP,
    USER_ID,
)
from pipelines.models.base import BuildInputs, Built, ScoredRequest
from pipelines.models.pmml_export import export_pmml
from pipelines.models.stored import EVALUATION, tidy_spark_files
from pipelines.models_config import CtrPmmlConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.ml import Estimator, Transformer
    from pyspark.sql import DataFrame, SparkSession

    _Stage = Estimator[Any] | Transformer

log = logging.getLogger(__name__)

#: The fields of the PMML.
INPUTS = (*NUMBERS, *GENRES)
_UNSEEN = "(unseen)"


def build(spark: SparkSession, inputs: BuildInputs) -> Built:
    """Evaluate on the holdout, then fit on all samples and write ``model.pmml``.

    The session must have been started with ``pmml_spark_conf()``. The feature tables are not
    among `tables`: :func:`pipelines.models.feature_tables.feature_tables` makes them for all
    rankers at once.

    Raises:
        DataError: no samples, an empty holdout, or only one label.
    """
    config, path = inputs.config.models.ctr_pmml, inputs.workdir / "model.pmml"
    baselines = score_baselines(inputs.paths.samples)
    samples = _read(spark, inputs).cache()
    kept = inputs.workdir / EVALUATION
    fit(samples.where(~samples[IS_HOLDOUT]), config).save(str(kept))
    tidy_spark_files(kept)
    metrics = score_metrics(_measure(samples, kept), baselines)
    for name, metric in metrics.items():
        log.info("ctr_pmml %s: %s", name, metric.describe())

    released = fit(samples, config)
    export_pmml(released, StructType([samples.schema[name] for name in (LABEL, *INPUTS)]), path)
    golden = _golden(spark, released, samples, inputs.config.release.golden_size)
    samples.unpersist()
    return Built(
        metrics=metrics,
        params=config.model_dump(exclude={"enabled"}),
        files={path.name: path, EVALUATION: kept},
        golden=golden,
    )


def evaluate_stored(spark: SparkSession, inputs: BuildInputs, folder: Path) -> dict[str, float]:
    """Return the metrics of the fit in `folder`, of this or another run, on this run's holdout.

    Raises:
        DataError: a score is not finite.
    """
    return _measure(_read(spark, inputs), folder)


def _measure(samples: DataFrame, folder: Path) -> dict[str, float]:
    model = PipelineModel.load(str(folder))
    columns = (LABEL, USER_COUNT, ITEM_COUNT, "score")
    scored = score(model, samples.where(IS_HOLDOUT)).select(*columns).toArrow()
    return score_values(Scored.of(scored, scored["score"].to_numpy()))


def _read(spark: SparkSession, inputs: BuildInputs) -> DataFrame:
    samples = spark.read.parquet(inputs.paths.samples)
    numbers = [sf.col(name).cast("double").alias(name) for name in NUMBERS]
    key = sf.xxhash64(USER_ID, ITEM_ID, TIMESTAMP).alias("key")
    return samples.select(LABEL, IS_HOLDOUT, key, *numbers, *GENRES)


def fit(samples: DataFrame, config: CtrPmmlConfig) -> PipelineModel:
    """Fit the pipeline to `samples` with a label and :data:`INPUTS`.

    A feature without any value is left out of the model (nothing could be imputed).

    Raises:
        DataError: no feature has a value.
    """
    counts = samples.agg(*[sf.count(name).alias(name) for name in INPUTS]).first()
    present = {name for name in INPUTS if counts and counts[name]}
    if not present:
        raise DataError("samples: no feature has a value")
    numbers = [name for name in NUMBERS if name in present]
    genres = [name for name in GENRES if name in present]
    stages: list[_Stage] = [
        *(_number_stages(numbers, config.buckets) if numbers else []),
        *(_genre_stages(genres) if genres else []),
        VectorAssembler(
            inputCols=[
                *(["scaled"] if numbers else []),
                *[f"{name}_onehot" for name in (*numbers, *genres)],
            ],
            outputCol="features",
        ),
        LogisticRegression(
            labelCol=LABEL, regParam=config.regularization, maxIter=config.iterations
        ),
    ]
    return Pipeline(stages=stages).fit(samples)


def _number_stages(names: Sequence[str], buckets: int) -> list[_Stage]:
    imputed = [f"{name}_imputed" for name in names]
    bucketed = [f"{name}_bucket" for name in names]
    onehot = [f"{name}_onehot" for name in names]
    return [
        Imputer(strategy="median", inputCols=list(names), outputCols=imputed),
        VectorAssembler(inputCols=imputed, outputCol="numbers"),
        StandardScaler(withMean=True, inputCol="numbers", outputCol="scaled"),
        QuantileDiscretizer(
            numBucketsArray=[buckets] * len(names), inputCols=imputed, outputCols=bucketed
        ),
        OneHotEncoder(dropLast=False, inputCols=bucketed, outputCols=onehot),
    ]


def _genre_stages(names: Sequence[str]) -> list[_Stage]:
    indexed = [f"{name}_index" for name in names]
    return [
        StringIndexer(handleInvalid="keep", inputCols=list(names), outputCols=indexed),
        OneHotEncoder(
            dropLast=False, inputCols=indexed, outputCols=[f"{name}_onehot" for name in names]
        ),
    ]


def score(model: PipelineModel, samples: DataFrame) -> DataFrame:
    """Return `samples` with ``score`` (double): the probability of a positive rating."""
    probability = vector_to_array(sf.col("probability"))[1]
    return model.transform(samples).withColumn("score", probability)


def _golden(
    spark: SparkSession, model: PipelineModel, samples: DataFrame, size: int
) -> list[ScoredRequest]:
    """Return `size` requests with Spark's probability: nothing known, unseen genres, samples."""
    rows = samples.orderBy("key", *INPUTS).limit(size).select(*INPUTS).collect()
    first = rows[0].asDict()
    requests = [dict.fromkeys(INPUTS), {**first, **dict.fromkeys(GENRES, _UNSEEN)}]
    requests += [row.asDict() for row in rows]
    schema = StructType([samples.schema[name] for name in INPUTS])
    frame = spark.createDataFrame([tuple(r.values()) for r in requests[:size]], schema)
    return [
        ScoredRequest(inputs={name: row[name] for name in INPUTS}, score=row["score"])
        for row in score(model, frame).select(*INPUTS, "score").collect()
    ]
