"""What scores an item for a user: boosted trees, and the Keras networks by Ferry's own trainers."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.plain.clock import Clock
from pipelines.config import PipelineConfig
from pipelines.evaluation.scores import auc
from pipelines.features.schema import GENRES, NUMBERS
from pipelines.lake import RunPaths


def trees(samples: pa.Table, config: PipelineConfig, clock: Clock) -> None:
    """Evaluate boosted trees on the statistics and genres, and fit them again on everything."""
    settings = config.models.ctr_pmml.gradient_boosted_trees
    with clock.part("trees, evaluated") as quality:
        columns = [samples[name].cast(pa.float64()).to_numpy() for name in NUMBERS]
        for name in GENRES:
            codes = samples[name].combine_chunks().dictionary_encode().indices
            columns.append(codes.cast(pa.float64()).to_numpy(zero_copy_only=False))
        matrix = np.stack(columns, axis=1)
        label = samples["label"].to_numpy()
        holdout = samples["is_holdout"].to_numpy(zero_copy_only=False).astype(bool)

        def fitted(rows: NDArray[np.bool_]) -> Any:
            parameters = {
                "objective": "binary",
                "max_depth": settings.depth,
                "num_leaves": 2**settings.depth,
                "learning_rate": settings.learning_rate,
                "max_bin": settings.bins,
                "min_data_in_leaf": settings.min_leaf_samples,
                "num_threads": len(os.sched_getaffinity(0)),
                "seed": config.seed,
                "verbose": -1,
            }
            categories = list(range(len(NUMBERS), len(columns)))
            rows_of = lightgbm.Dataset(matrix[rows], label[rows], categorical_feature=categories)
            return lightgbm.train(parameters, rows_of, settings.trees)

        scores = fitted(~holdout).predict(matrix[holdout])
        quality["AUC"] = auc(label[holdout], scores)
    with clock.part("trees, released"):
        fitted(np.ones(len(label), bool))


def keras_part(
    name: str, samples: Path, config: PipelineConfig, folder: Path, clock: Clock
) -> None:
    """Choose the passes, evaluate, and fit again on everything, by Ferry's own trainer."""
    from pipelines.models import interest_ranker
    from pipelines.models.base import BuildInputs
    from pipelines.models.rankers import unit

    folder.mkdir()
    inputs = BuildInputs(date.min, RunPaths(str(samples.parent)), config, folder)
    with clock.part(name) as quality:
        if name == "interest_ranker":
            trainer = interest_ranker.make_trainer(inputs)
            evaluated = unit.evaluate(trainer, inputs, folder / "evaluation")
            trainer.fit(None, evaluated.epochs, "to release")
            metrics = evaluated.metrics
        else:
            metrics = unit.build("embedding_mlp", inputs).metrics
        quality["AUC"] = metrics["auc"].value
