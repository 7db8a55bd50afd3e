"""The units' builders by name; a builder is imported when it is asked for.

Importing this module imports neither Spark nor TensorFlow: the DAGs' tasks do.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.models.base import BuildInputs, Built, Metric
from pipelines.models_config import RANKERS, READ_HISTORY, Unit

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class _Builder:
    module: str
    needs_spark: bool = True
    #: Which of the shared feature tables the unit's versions carry.
    feature_tables: tuple[str, ...] = ()
    exports_pmml: bool = False
    #: Whether the module builds several units, and must be told which one.
    is_shared: bool = False


_FEATURES = ("user_features", "item_features")
_BUILDERS: dict[Unit, _Builder] = {
    "recs": _Builder("pipelines.models.recs"),
    "embeddings": _Builder("pipelines.models.embeddings"),
    "interest_ranker": _Builder("pipelines.models.interest_ranker", feature_tables=_FEATURES),
    "ctr_pmml": _Builder("pipelines.models.ctr_pmml", feature_tables=_FEATURES, exports_pmml=True),
    **{
        ranker: _Builder(
            "pipelines.models.rankers.unit",
            needs_spark=False,
            feature_tables=(*_FEATURES, "user_history") if ranker in READ_HISTORY else _FEATURES,
            is_shared=True,
        )
        for ranker in RANKERS
    },
}


def needs_spark(unit: Unit) -> bool:
    """Tell whether the unit is built by Spark."""
    return _BUILDERS[unit].needs_spark


def load(unit: Unit) -> None:
    """Import the unit's builder, and with it TensorFlow where the unit needs it."""
    importlib.import_module(_BUILDERS[unit].module)


def feature_tables(unit: Unit) -> tuple[str, ...]:
    """Return which of the shared feature tables the unit's versions carry."""
    return _BUILDERS[unit].feature_tables


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


def compare(
    unit: Unit, spark: SparkSession | None, inputs: BuildInputs
) -> dict[str, dict[str, Metric]]:
    """Return the metrics of each of the unit's models on this run's holdout, by model and name.

    Raises:
        DataError: as :func:`build`.
        ValueError: the unit needs Spark and there is none.
    """
    compared: dict[str, dict[str, Metric]] = _call(unit, "compare", spark, inputs)
    return compared


def _call(unit: Unit, name: str, spark: SparkSession | None, *arguments: Any) -> Any:
    """Call a function of the unit's module, with the session where it is needed."""
    builder = _BUILDERS[unit]
    function: Callable[..., Any] = getattr(importlib.import_module(builder.module), name)
    if builder.is_shared:
        function = functools.partial(function, unit)
    if not builder.needs_spark:
        return function(*arguments)
    if spark is None:
        raise ValueError(f"{unit} is built by Spark: give it a session")
    return function(spark, *arguments)
