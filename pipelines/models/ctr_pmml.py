"""Unit `ctr_pmml`: a click model over the point-in-time features, exported as PMML.

The models are in :mod:`pipelines.models.pmml`; which of them is released is configured.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as sf
from pyspark.sql.types import StructType

from pipelines.evaluation.scores import (
    ITEM_COUNT,
    USER_COUNT,
    Scored,
    calibration_bins,
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
from pipelines.models.base import BuildInputs, Built, Metric, ScoredRequest
from pipelines.models.pmml import gradient_boosted_trees, logistic_regression
from pipelines.models.pmml.inputs import INPUTS
from pipelines.models.pmml_export import export_pmml
from pipelines.models.stored import EVALUATION, tidy_spark_files
from pipelines.models_config import PMML_MODELS, CtrPmmlConfig, PmmlModel
from pipelines.progress import progress

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)

_UNSEEN = "(unseen)"


def build(spark: SparkSession, inputs: BuildInputs) -> Built:
    """Evaluate on the holdout, then fit on all samples and write ``model.pmml``.

    The session must have been started with ``pmml_spark_conf()``. The feature tables are not
    among `tables`: :func:`pipelines.models.feature_tables.feature_tables` makes them for all
    rankers at once.

    Raises:
        DataError: no samples, an empty holdout, or only one label.
    """
    config, seed = inputs.config.models.ctr_pmml, inputs.config.seed
    path = inputs.workdir / "model.pmml"
    baselines = score_baselines(inputs.paths.samples)
    samples = _read(spark, inputs).cache()
    kept = inputs.workdir / EVALUATION
    with progress("ctr_pmml", total=4, unit="steps") as advance:
        advance(0, "fitting for the evaluation")
        fit(samples.where(~samples[IS_HOLDOUT]), config.model, config, seed).save(str(kept))
        tidy_spark_files(kept)
        advance(1, "evaluating")
        scored = _score_holdout(PipelineModel.load(str(kept)), samples)
        metrics = score_metrics(score_values(scored), baselines)
        for name, metric in metrics.items():
            log.info("ctr_pmml %s: %s", name, metric.describe())
        advance(1, "fitting to release")
        released = fit(samples, config.model, config, seed)
        advance(1, "exporting")
        export_pmml(released, StructType([samples.schema[name] for name in (LABEL, *INPUTS)]), path)
        golden = _golden(spark, released, samples, inputs.config.release.golden_size)
        advance(1)
    samples.unpersist()
    return Built(
        metrics=metrics,
        params={"model": config.model, **getattr(config, config.model).model_dump(), "seed": seed},
        files={path.name: path, EVALUATION: kept},
        golden=golden,
        calibration=calibration_bins(scored),
    )


def evaluate_stored(spark: SparkSession, inputs: BuildInputs, folder: Path) -> dict[str, float]:
    """Return the metrics of the fit in `folder`, of this or another run, on this run's holdout.

    Raises:
        DataError: a score is not finite.
    """
    return score_values(_score_holdout(PipelineModel.load(str(folder)), _read(spark, inputs)))


def compare(spark: SparkSession, inputs: BuildInputs) -> dict[str, dict[str, Metric]]:
    """Return the metrics of every model on the run's holdout, each as it is configured.

    Raises:
        DataError: as :func:`build` does.
    """
    baselines = score_baselines(inputs.paths.samples)
    samples = _read(spark, inputs).cache()
    training = samples.where(~samples[IS_HOLDOUT])
    metrics: dict[str, dict[str, Metric]] = {}
    for name in PMML_MODELS:
        fitted = fit(training, name, inputs.config.models.ctr_pmml, inputs.config.seed)
        metrics[name] = score_metrics(score_values(_score_holdout(fitted, samples)), baselines)
    samples.unpersist()
    return metrics


def _score_holdout(model: PipelineModel, samples: DataFrame) -> Scored:
    columns = (LABEL, USER_COUNT, ITEM_COUNT, "score")
    scored = score(model, samples.where(IS_HOLDOUT)).select(*columns).toArrow()
    return Scored.of(scored, scored["score"].to_numpy())


def _read(spark: SparkSession, inputs: BuildInputs) -> DataFrame:
    samples = spark.read.parquet(inputs.paths.samples)
    numbers = [sf.col(name).cast("double").alias(name) for name in NUMBERS]
    # Empty is missing, as it is everywhere at the edges.
    genres = [sf.nullif(sf.col(name), sf.lit("")).alias(name) for name in GENRES]
    key = sf.xxhash64(USER_ID, ITEM_ID, TIMESTAMP).alias("key")
    return samples.select(LABEL, IS_HOLDOUT, key, *numbers, *genres)


def fit(samples: DataFrame, model: PmmlModel, config: CtrPmmlConfig, seed: int) -> PipelineModel:
    """Fit `model` to `samples` with a label (double) and :data:`INPUTS`.

    A feature without any value is left out of the model: there is nothing to learn from.

    Raises:
        DataError: no feature has a value.
    """
    match model:
        case "logistic_regression":
            return logistic_regression.fit(samples, config.logistic_regression)
        case "gradient_boosted_trees":
            return gradient_boosted_trees.fit(samples, config.gradient_boosted_trees, seed)


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
