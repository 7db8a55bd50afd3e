"""Unit `embedding_mlp`: Embedding+MLP (Cheng et al. 2016, the deep part; Covington et al. 2016).

The vectors of user, item, recently liked items and genres, with the normalised numbers, go
through a multilayer perceptron to the probability of a positive rating.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

# Both before TensorFlow is imported: its start-up lines, and sums whose order differs by CPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
import pyarrow.dataset as ds
import tensorflow as tf

from pipelines.evaluation.scores import score_baselines, score_metrics, score_values
from pipelines.models.base import BuildInputs, Built
from pipelines.models.ranker_data import HOLDOUT, TRAINING, Samples, Statistics
from pipelines.models.ranker_inputs import embedded, numbers, raw_inputs
from pipelines.models.saved_model import (
    SCORE,
    SIGNATURE,
    export_saved_model,
    golden_requests,
    write_saved_model,
)
from pipelines.models.stored import EVALUATION
from pipelines.models_config import EmbeddingMlpConfig
from pipelines.online.ranking_inputs import INPUTS, TEXT_INPUTS
from pipelines.progress import progress

log = logging.getLogger(__name__)

UNIT = "embedding_mlp"
_SCORED_AT_ONCE = 8192


def build(inputs: BuildInputs) -> Built:
    """Evaluate on the holdout, then train on all samples and write ``saved_model``.

    Sets TensorFlow's random seeds and makes its operations deterministic, for the whole process.
    The feature tables are made for all rankers at once, see
    :func:`pipelines.models.feature_tables.feature_tables`.

    Raises:
        DataError: no samples, an empty holdout, only one label, or scores that are not finite.
    """
    config, seed = inputs.config.models.embedding_mlp, inputs.config.seed
    baselines = score_baselines(inputs.paths.samples)
    samples = Samples(inputs.paths.samples)
    fitted = train(samples, TRAINING, config, seed, "embedding_mlp, to evaluate")
    kept = inputs.workdir / EVALUATION
    write_saved_model(fitted, kept)
    metrics = score_metrics(evaluate_stored(inputs, kept), baselines)
    for name, metric in metrics.items():
        log.info("embedding_mlp %s: %s", name, metric.describe())

    released = train(samples, None, config, seed, "embedding_mlp, to release")
    size = inputs.config.release.golden_size
    rows = samples.head(size)
    folder = inputs.workdir / "saved_model"
    export_saved_model(released, folder, UNIT, rows)
    return Built(
        metrics=metrics,
        params={**config.model_dump(mode="json", exclude={"enabled"}), "seed": seed},
        files={"saved_model": folder, EVALUATION: kept},
        golden=golden_requests(released, rows, size),
    )


def evaluate_stored(inputs: BuildInputs, folder: Path) -> dict[str, float]:
    """Return the metrics of the SavedModel in `folder`, of this or another run, on this holdout.

    Raises:
        DataError: a score is not finite.
    """
    loaded = tf.saved_model.load(str(folder))
    return score_values(*predict(loaded.signatures[SIGNATURE], Samples(inputs.paths.samples)))


def make_model(statistics: Statistics, config: EmbeddingMlpConfig, seed: int) -> keras.Model:
    """Return the untrained model, from raw inputs [n] to the probability of a positive [n]."""
    inputs = raw_inputs()
    vectors = embedded(
        inputs,
        statistics,
        dimension=config.dimension,
        genre_dimension=config.dimension,
        id_dropout=config.id_dropout,
        seed=seed,
    )
    hidden = keras.layers.Concatenate()([*vectors.values(), numbers(inputs, statistics)])
    for size in config.hidden:
        hidden = keras.layers.Dense(size, activation="relu")(hidden)
        hidden = keras.layers.Dropout(config.dropout)(hidden)
    score = keras.layers.Dense(1, activation="sigmoid")(hidden)
    return keras.Model(inputs, keras.ops.squeeze(score, axis=-1), name=UNIT)


def train(
    samples: Samples,
    chosen: ds.Expression | None,
    config: EmbeddingMlpConfig,
    seed: int,
    what: str,
) -> keras.Model:
    """Fit a model to the chosen samples; the same samples and seed give the same weights."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    model = make_model(samples.statistics(chosen, config.max_vocabulary), config, seed)
    model.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss="binary_crossentropy",
        jit_compile=False,  # XLA has no texts.
    )
    with progress(what, samples.count(chosen) * config.epochs) as advance:
        for epoch in range(config.epochs):
            batches = _dataset(samples, chosen, config.batch_size, seed + epoch)
            model.reset_metrics()
            for columns, labels in batches:
                loss = model.train_on_batch(columns, labels)
                advance(len(labels), f"epoch {epoch + 1}/{config.epochs}, loss {loss:.4f}")
    return model


def _dataset(
    samples: Samples, chosen: ds.Expression | None, size: int, seed: int | None = None
) -> tf.data.Dataset:
    signature = {
        name: tf.TensorSpec([None], tf.string if name in TEXT_INPUTS else tf.float32)
        for name in INPUTS
    }
    return tf.data.Dataset.from_generator(
        lambda: samples.batches(chosen, size, seed),
        output_signature=(signature, tf.TensorSpec([None], tf.float32)),
    ).prefetch(4)


def predict(signature: Any, samples: Samples) -> tuple[Any, Any]:
    """Return labels and a signature's scores of the holdout, both [n] float64."""
    labels, scores = [], []
    for columns, label in _dataset(samples, HOLDOUT, _SCORED_AT_ONCE):
        labels.append(label.numpy())
        scores.append(signature(**columns)[SCORE].numpy())
    return np.concatenate(labels).astype(float), np.concatenate(scores).astype(float)
