"""The unit of a Keras ranker: evaluated on the holdout, then trained on everything and exported."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipelines.errors import DataError
from pipelines.evaluation.scores import (
    ITEM_COUNT,
    USER_COUNT,
    Scored,
    calibration_bins,
    score_baselines,
    score_metrics,
    score_values,
)
from pipelines.features.schema import LABEL
from pipelines.models.base import BuildInputs, Built, CalibrationBin, Metric
from pipelines.models.rankers.encoded import Shape
from pipelines.models.rankers.export import (
    SCORE,
    SIGNATURE,
    ServedRanker,
    add_warmup,
    golden_requests,
)
from pipelines.models.rankers.inputs import is_text
from pipelines.models.rankers.samples import (
    HOLDOUT,
    TRAINING,
    Samples,
    raw_columns,
)
from pipelines.models.rankers.training import Fitted, Trainer
from pipelines.models.stored import EVALUATION
from pipelines.models_config import READ_HISTORY, Ranker, RankerConfig

log = logging.getLogger(__name__)

_SCORED_AT_ONCE = 8192


def build(unit: Ranker, inputs: BuildInputs) -> Built:
    """Evaluate on the holdout, then train on all samples and write ``saved_model``.

    The number of passes is chosen on the validation slice, which is part of what the evaluated
    fit is then trained on. The feature tables are made for all rankers at once, see
    :func:`pipelines.models.feature_tables.feature_tables`.

    Raises:
        DataError: no samples, an empty holdout, only one label, or scores that are not finite.
    """
    trainer = _trainer(unit, inputs)
    kept = inputs.workdir / EVALUATION
    evaluated = evaluate(trainer, inputs, kept)
    for name, metric in evaluated.metrics.items():
        log.info("%s %s: %s", unit, name, metric.describe())

    fitted = trainer.fit(None, evaluated.epochs, "to release")
    released = ServedRanker(fitted, trainer.shape)
    size = inputs.config.release.golden_size
    rows = trainer.samples.head(size, released.names)
    folder = inputs.workdir / "saved_model"
    released.write(folder)
    add_warmup(folder, unit, rows, released.names)
    return Built(
        metrics=evaluated.metrics,
        params=trainer.params(evaluated.epochs),
        files={"saved_model": folder, EVALUATION: kept},
        golden=golden_requests(released, rows, size),
        calibration=evaluated.calibration,
    )


def evaluate_stored(unit: Ranker, inputs: BuildInputs, folder: Path) -> dict[str, float]:
    """Return the metrics of the SavedModel in `folder`, of this or another run, on this holdout.

    Raises:
        DataError: a score is not finite.
    """
    return measure_stored(inputs, folder)


def compare(unit: Ranker, inputs: BuildInputs) -> dict[str, dict[str, Metric]]:
    """Return the ranker's metrics on the holdout, by its name.

    Raises:
        DataError: as :func:`build`.
    """
    return {unit: evaluate(_trainer(unit, inputs), inputs, inputs.workdir / EVALUATION).metrics}


def _trainer(unit: Ranker, inputs: BuildInputs) -> Trainer:
    config: RankerConfig = getattr(inputs.config.models, unit)
    length = inputs.config.features.history_length if unit in READ_HISTORY else None
    return Trainer(
        network=importlib.import_module(f"pipelines.models.rankers.{unit}").network,
        config=config,
        samples=Samples(inputs.paths.samples),
        shape=Shape.of(length),
        seed=inputs.config.seed,
        folder=inputs.workdir,
        name=unit,
    )


@dataclass(frozen=True)
class Evaluated:
    """The fit that has not seen the holdout, how it scores it, and how many passes were chosen."""

    fitted: Fitted
    epochs: int
    metrics: dict[str, Metric]
    calibration: list[CalibrationBin]


def evaluate(trainer: Trainer, inputs: BuildInputs, folder: Path) -> Evaluated:
    """Fit to what is not holdout, keep that fit in `folder`, and measure it as it is kept.

    Raises:
        DataError: no samples, an empty holdout, only one label, or scores that are not finite.
    """
    baselines = score_baselines(inputs.paths.samples)
    epochs = trainer.choose_epochs()
    fitted = trainer.fit(TRAINING, epochs, "to evaluate")
    ServedRanker(fitted, trainer.shape).write(folder)
    scored = _score_holdout(inputs, folder)
    metrics = score_metrics(score_values(scored), baselines)
    return Evaluated(fitted, epochs, metrics, calibration_bins(scored))


def measure_stored(inputs: BuildInputs, folder: Path) -> dict[str, float]:
    """Return the metrics of a SavedModel over raw samples on this run's holdout.

    Raises:
        DataError: a score is not finite.
    """
    return score_values(_score_holdout(inputs, folder))


def _score_holdout(inputs: BuildInputs, folder: Path) -> Scored:
    loaded = tf.saved_model.load(str(folder))
    return predict(loaded.signatures[SIGNATURE], Samples(inputs.paths.samples))


def predict(signature: Any, samples: Samples) -> Scored:
    """Return a signature's scores of the holdout.

    Raises:
        DataError: the holdout is empty.
    """
    names = list(signature.structured_input_signature[1])
    columns = {*names, LABEL, USER_COUNT, ITEM_COUNT}
    parts = []
    for table in samples.tables(HOLDOUT, sorted(columns), _SCORED_AT_ONCE):
        given = {
            name: tf.constant(column, tf.string if is_text(name) else tf.float32)
            for name, column in raw_columns(table, names).items()
        }
        parts.append(Scored.of(table, signature(**given)[SCORE].numpy()))
    if not parts:
        raise DataError(f"{samples.path}: the holdout is empty")
    return Scored.concatenate(parts)
