"""Verification: what the online side answers must be what the trainer answered.

Lists and texts are compared exactly, scores to 1e-5, and float16 vectors to the rounding of
float16 (a relative 2**-11, see :mod:`pipelines.online.layout`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.config import Settings
from pipelines.errors import VerificationError
from pipelines.online.layout import TableMeta, Value, within_float16
from pipelines.online.ranking_inputs import pmml_rows, serving_inputs
from pipelines.online.store import OnlineStore
from pipelines.online.tf_serving import ModelServer
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Golden, Manifest
from pipelines.release.registry import Registry

if TYPE_CHECKING:
    from pipelines.models.base import ScoredRequest

SCORE_TOLERANCE = 1e-5
PMML_FILE = "model.pmml"
SAVED_MODEL = "saved_model"


def verify_version(context: ReleaseContext, manifest: Manifest) -> list[str]:
    """Compare a staged version's online answers with its golden ones; returns what was checked.

    Raises:
        VerificationError: an answer differs; the message shows both.
        ServiceError: a service does not answer.
    """
    checks = []
    with tempfile.TemporaryDirectory(prefix="ferry-verify-") as folder:
        golden = context.registry.golden(manifest, Path(folder))
        checks += _verify_tables(context.online, manifest, golden)
        if any(entry.name == PMML_FILE for entry in manifest.files):
            checks.append(_verify_pmml(context.registry, manifest, golden.scores, Path(folder)))
        if manifest.files_below(SAVED_MODEL):
            checks += _verify_model(context.settings, manifest, golden.scores)
    return checks


def _verify_tables(online: OnlineStore, manifest: Manifest, golden: Golden) -> list[str]:
    unit, version = manifest.unit, manifest.version
    staged = online.table_meta(unit, version)
    checks = []
    for expected in golden.tables:
        meta = staged.get(expected.table)
        if meta is None:
            raise VerificationError(
                f"{unit} {version}: table {expected.table} is not in Redis at {online.address}"
            )
        answers = online.read(unit, version, meta, list(expected.rows))
        for entity_id, value in expected.rows.items():
            answer = answers.get(entity_id)
            if answer is None or not _same(value, answer, meta):
                raise VerificationError(
                    f"{unit} {version}, table {meta.name}, id {entity_id}: Redis at "
                    f"{online.address} answers {_short(answer)}, the trainer {_short(value)}"
                )
        checks.append(f"{len(expected.rows)} rows of {meta.name} through Redis")
    return checks


def _same(expected: Value, answer: Value, meta: TableMeta) -> bool:
    if meta.kind != "vector":
        return answer == expected
    stored, original = np.asarray(answer, np.float64), np.asarray(expected, np.float64)
    return stored.shape == original.shape and within_float16(stored, original)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _verify_pmml(
    registry: Registry, manifest: Manifest, golden: Sequence[ScoredRequest], folder: Path
) -> str:
    from pipelines.online.pmml import PmmlScorer

    path = folder / PMML_FILE
    entry = next(entry for entry in manifest.files if entry.name == PMML_FILE)
    registry.download(manifest, entry, path)
    scorer = PmmlScorer(path)
    try:
        scores = scorer.score(pmml_rows([request.inputs for request in golden]))
    finally:
        scorer.close()
    return _compare(manifest, "pypmml", golden, scores)


def _verify_model(
    settings: Settings, manifest: Manifest, golden: Sequence[ScoredRequest]
) -> list[str]:
    inputs = serving_inputs([request.inputs for request in golden])
    checks = []
    for replica in settings.tf_serving:
        with ModelServer(replica) as server:
            ways: dict[str, Callable[..., list[float]]] = {
                f"gRPC at {replica.grpc}": server.predict_grpc,
                f"REST at {replica.rest}": server.predict_rest,
            }
            for way, predict in ways.items():
                scores = predict(manifest.unit, manifest.version, inputs)
                checks.append(_compare(manifest, way, golden, scores))
    return checks


def _compare(
    manifest: Manifest, way: str, golden: Sequence[ScoredRequest], scores: Sequence[float]
) -> str:
    if not golden:
        raise VerificationError(f"{manifest.unit} {manifest.version} has no golden requests")
    for request, score in zip(golden, scores, strict=True):
        # "not <=" also catches NaN, which compares false with everything.
        if not abs(score - request.score) <= SCORE_TOLERANCE:
            raise VerificationError(
                f"{manifest.unit} {manifest.version} through {way} scores {score!r}, the trainer "
                f"{request.score!r} (tolerance {SCORE_TOLERANCE}), for {_short(request.inputs)}"
            )
    return f"{len(golden)} scores through {way}"
