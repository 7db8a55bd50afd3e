"""The units' builders by name; a builder is imported when it is asked for.

Importing this module imports neither Spark nor TensorFlow: the DAGs' tasks do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.models.base import BuildInputs, Built
from pipelines.models_config import Unit

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class _Builder:
    module: str
    needs_spark: bool = True
    #: Whether the unit's versions carry the shared feature tables.
    uses_features: bool = False
    exports_pmml: bool = False


_BUILDERS: dict[Unit, _Builder] = {
    "recs": _Builder("pipelines.models.recs"),
    "embeddings": _Builder("pipelines.models.embeddings"),
    "ctr_pmml": _Builder("pipelines.models.ctr_pmml", uses_features=True, exports_pmml=True),
    "embedding_mlp": _Builder(
        "pipelines.models.embedding_mlp", needs_spark=False, uses_features=True
    ),
}


def needs_spark(unit: Unit) -> bool:
    """Tell whether the unit is built by Spark."""
    return _BUILDERS[unit].needs_spark


def uses_features(unit: Unit) -> bool:
    """Tell whether the unit's versions carry the shared feature tables."""
    return _BUILDERS[unit].uses_features


def spark_jars(unit: Unit) -> list[str]:
    """Return the jars that the Spark session of the unit's build must start with."""
    if not _BUILDERS[unit].exports_pmml:
        return []
    from pipelines.models.pmml_export import pmml_jars

    return pmml_jars()


def build(unit: Unit, spark: SparkSession | None, inputs: BuildInputs) -> Built:
    """Train, evaluate and lay out one unit; `spark` may be None where it is not needed.

    Raises:
        DataError: the data can't give a model with finite metrics.
        ValueError: the unit needs Spark and there is none.
    """
    built: Built = _call(unit, "build", spark, inputs)
    return built


def evaluate_stored(
    unit: Unit, spark: SparkSession | None, inputs: BuildInputs, folder: Path
) -> dict[str, float]:
    """Return a version's metrics on this run's holdout, by name.

    `folder` holds that version's evaluated fit, see :mod:`pipelines.models.stored`. What an
    artifact that does not fit this code raises is its library's own.

    Raises:
        DataError: the holdout can't give finite metrics.
        ValueError: the unit needs Spark and there is none.
    """
    metrics: dict[str, float] = _call(unit, "evaluate_stored", spark, inputs, folder)
    return metrics


def _call(unit: Unit, name: str, spark: SparkSession | None, *arguments: Any) -> Any:
    """Call a function of the unit's module, with the session where it is needed."""
    builder = _BUILDERS[unit]
    function: Callable[..., Any] = getattr(importlib.import_module(builder.module), name)
    if not builder.needs_spark:
        return function(*arguments)
    if spark is None:
        raise ValueError(f"{unit} is built by Spark: give it a session")
    return function(spark, *arguments)
