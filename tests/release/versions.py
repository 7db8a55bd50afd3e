"""Small versions of units for the release tests, made without Spark and told apart by content.

Everything in a version says which attempt it belongs to: lists begin with it, vectors consist of
it, and scores are a weight that neighbouring attempts do not share.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.features.schema import ITEM_FEATURES, USER_FEATURES
from pipelines.models.base import Built, Metric, ScoredRequest, TableKind
from pipelines.online.layout import Value
from pipelines.online.ranking_inputs import INPUTS, TEXT_INPUTS
from pipelines.release.activate import activate
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import GoldenTable, Manifest
from pipelines.release.publish import publish
from pipelines.release.runners import LocalRunner
from pipelines.release.stage_model import bring_model, load_model
from pipelines.release.staged import stage_missing_tables
from pipelines.release.tables import PreparedTables
from pipelines.run import ActivateMode, RunPlan, make_version
from tests.release.sealed import describe, rows_of

DAY = date(2026, 3, 1)
USERS = 100
DIMENSION = 4
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5)
GOLDEN = 16
RUNNER = LocalRunner(1)

Rows = Mapping[str, Value]


def weight(attempt: int) -> float:
    """Return what the model of an attempt multiplies by."""
    return WEIGHTS[attempt % len(WEIGHTS)]


def save_model(folder: Path, factor: float) -> Path:
    """Export a SavedModel with Ferry's signatures: factor * user_rating_mean, 0 if missing."""
    import tensorflow as tf

    signature = {
        name: tf.TensorSpec([None], tf.string if name in TEXT_INPUTS else tf.float32, name=name)
        for name in INPUTS
    }

    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.factor = tf.Variable(factor)

        @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
        def serve(self, inputs: dict[str, Any]) -> dict[str, Any]:
            mean = inputs["user_rating_mean"]
            return {"score": self.factor * tf.where(tf.math.is_nan(mean), 0.0, mean)}

        @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
        def rank(self, inputs: dict[str, Any]) -> dict[str, Any]:
            score = self.serve({**inputs})["score"]
            return {"score": tf.repeat(score, tf.size(inputs["item_id"]))}

    model = Model()
    signatures = {"serving_default": model.serve, "rank": model.rank}
    tf.saved_model.save(model, str(folder), signatures=signatures)
    return folder


def save_models(folder: Path) -> Path:
    """Export one such model for each weight."""
    for factor in WEIGHTS:
        save_model(folder / str(factor), factor)
    return folder


def raw_row(**known: Any) -> dict[str, Any]:
    """Return a row of raw features in which all but the `known` ones are missing."""
    return {**dict.fromkeys(INPUTS), **known}


def tables(unit: str, attempt: int) -> dict[str, tuple[TableKind, Rows]]:
    """Return a unit's tables."""
    ids = [str(i) for i in range(USERS)]
    titles: Rows = {i: f'Title, "{i}" é' for i in ids}
    vectors: Rows = {i: [float(attempt)] * DIMENSION for i in ids}
    if unit == "recs":
        lists: Rows = {i: [attempt, int(i), 1] for i in ids}
        popular: Rows = {"all": [attempt, 3, 1]}
        return {
            "user_items": ("ids", lists),
            "popular": ("ids", popular),
            "titles": ("text", titles),
        }
    if unit == "embeddings":
        neighbours: Rows = {i: [(int(i) + 1) % USERS] for i in ids}
        return {
            "item_vectors": ("vector", vectors),
            "user_vectors": ("vector", vectors),
            "neighbours": ("ids", neighbours),
            "titles": ("text", titles),
        }
    user = json.dumps([3.5 if name == "user_rating_mean" else None for name in USER_FEATURES])
    users: Rows = dict.fromkeys(ids, user)
    items: Rows = {i: json.dumps([None] * len(ITEM_FEATURES)) for i in ids}
    return {"user_features": ("text", users), "item_features": ("text", items)}


def prepare(content: Mapping[str, tuple[TableKind, Rows]], folder: Path) -> PreparedTables:
    """Write tables as a build does, without Spark."""
    metas, golden = [], []
    for name, (kind, rows) in content.items():
        meta = describe(name, kind, rows)
        (folder / name).mkdir(parents=True)
        parts = pa.Table.from_batches([rows_of(meta, rows)])
        pq.write_table(parts, folder / name / "part-0.parquet")
        metas.append(meta)
        golden.append(GoldenTable(table=name, rows=dict(list(rows.items())[:GOLDEN])))
    return PreparedTables(folder, metas, golden)


def plan(unit: str, attempt: int, *, day: date = DAY, mode: ActivateMode = "if_newest") -> RunPlan:
    """Return the plan of an attempt's run."""
    return RunPlan.model_validate(
        {
            "run_date": day,
            "version": make_version(day, attempt),
            "run_type": "manual",
            "run_id": f"run {day} {attempt}",
            "units": (unit,),
            "activate": mode,
        }
    )


def build(
    context: ReleaseContext,
    folder: Path,
    unit: str,
    attempt: int,
    models: Path,
    *,
    day: date = DAY,
    answers: float | None = None,
    **manifest: Any,
) -> Manifest:
    """Seal one version; `answers` lets its golden requests expect another weight's scores."""
    what = plan(unit, attempt, day=day)
    workdir = folder / f"{unit}-{what.version}"
    workdir.mkdir()
    prepared = prepare(tables(unit, attempt), workdir / "tables")
    built = Built(metrics={"auc": Metric(value=0.7, baselines={"constant": 0.5})}, params={})
    if unit == "embedding_mlp":
        factor = answers or weight(attempt)
        requests: list[dict[str, Any]] = [
            raw_row(user_id="1", item_id="2", user_rating_mean=3.5),
            raw_row(user_id="nobody", item_id="nothing"),
        ]
        built.files["saved_model"] = models / str(weight(attempt))
        built.golden.extend(
            ScoredRequest(inputs=r, score=factor * (r["user_rating_mean"] or 0.0)) for r in requests
        )
    return publish(context.registry, what, unit, built, [prepared], {}, workdir, **manifest)


def stage(context: ReleaseContext, manifest: Manifest) -> None:
    """Put a version online beside what is live."""
    stage_missing_tables(context, manifest, RUNNER)
    if manifest.has_model:
        bring_model(context, manifest)
        load_model(context, manifest)


def release(
    context: ReleaseContext, folder: Path, unit: str, attempt: int, models: Path, **more: Any
) -> Manifest:
    """Build, stage and activate one version."""
    manifest = build(context, folder, unit, attempt, models, **more)
    stage(context, manifest)
    assert activate(context, manifest).outcome == "live"
    return manifest


def live_version(context: ReleaseContext, unit: str) -> int | None:
    """Return what the pointer names."""
    pointer = context.online.pointers.get(unit)
    return pointer.version if pointer else None
