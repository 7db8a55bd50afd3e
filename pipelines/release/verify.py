"""Verification: what the online side answers must be what the trainer answered.

Lists and texts are compared exactly, scores to 1e-5, and float16 vectors to the rounding of
float16 (a relative 2**-11, see :mod:`pipelines.online.layout`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.config import Replica
from pipelines.errors import FerryError, ServiceError, VerificationError
from pipelines.online.layout import TableMeta, Value, within_float16
from pipelines.online.ranking_inputs import pmml_rows, rank_inputs, serving_inputs
from pipelines.online.tf_serving import RANK_SIGNATURE, ModelServer
from pipelines.patience import Patience
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import PMML_FILE, Golden, Manifest

if TYPE_CHECKING:
    from pipelines.models.base import ScoredRequest

SCORE_TOLERANCE = 1e-5


def golden_of(context: ReleaseContext, manifest: Manifest) -> Golden:
    """Return a version's golden requests from object storage, verified against the manifest."""
    with tempfile.TemporaryDirectory(prefix="ferry-verify-") as folder:
        return context.registry.golden(manifest, Path(folder))


def verify_version(context: ReleaseContext, manifest: Manifest) -> list[str]:
    """Compare a staged version's online answers with its golden ones; returns what was checked.

    The model is asked on every replica, by gRPC and by REST.

    Raises:
        VerificationError: an answer differs; the message shows both.
        ServiceError: a service does not answer.
    """
    golden = golden_of(context, manifest)
    checks = _verify_tables(context, manifest, golden)
    if manifest.has_pmml:
        scorer = context.client.scoring.pmml(manifest.unit, manifest.version)
        scores = scorer.score(pmml_rows([request.inputs for request in golden.scores]))
        checks.append(_compare(manifest, "pypmml", golden.scores, scores))
    if manifest.has_model:
        checks += _verify_model(context, manifest, golden.scores)
    return checks


def verify_for_rollback(context: ReleaseContext, manifest: Manifest) -> list[str]:
    """Check as much of a staged version as seconds allow, and no more than a rollback needs.

    Its golden rows through Redis, its PMML's checksum, and its model on one replica: one that is
    down must not keep a bad version live.

    Raises:
        VerificationError: an answer differs.
        ServiceError: Redis, object storage or every replica does not answer.
    """
    golden = golden_of(context, manifest)
    checks = _verify_tables(context, manifest, golden)
    if manifest.has_pmml:
        entry = next(e for e in manifest.files if e.name == PMML_FILE)
        with tempfile.TemporaryDirectory(prefix="ferry-verify-") as folder:
            context.registry.download(manifest, entry, Path(folder) / PMML_FILE)
        checks.append(f"the checksum of {PMML_FILE}")
    if manifest.has_model:
        checks.append(_verify_one_replica(context, manifest, golden.scores))
    return checks


def canary_reads(context: ReleaseContext, manifest: Manifest) -> list[str]:
    """Ask for the golden rows as any client does, from the pointer on; returns what was checked.

    Raises:
        VerificationError: the pointer names another version, or an answer differs.
        ServiceError: a service does not answer.
    """
    golden = golden_of(context, manifest)
    live = context.client.live(manifest.unit)
    if live.version != manifest.version:
        raise VerificationError(
            f"{manifest.unit}: the pointer names {live.version} after the switch to "
            f"{manifest.version}"
        )
    checks = [
        _compare_rows(context, manifest, live.meta(expected.table), expected.rows,
                      live.read(expected.table, list(expected.rows)))
        for expected in golden.tables
    ]  # fmt: skip
    rows = [request.inputs for request in golden.scores]
    if manifest.has_pmml:
        scores = context.client.scoring.score(live, rows, "pmml")
        checks.append(_compare(manifest, "the client, by PMML", golden.scores, scores))
    if manifest.has_model:
        scores = context.client.scoring.score(live, rows, "tf_serving")
        checks.append(_compare(manifest, "the client, by REST", golden.scores, scores))
    return checks


def _verify_tables(context: ReleaseContext, manifest: Manifest, golden: Golden) -> list[str]:
    unit, version, online = manifest.unit, manifest.version, context.online
    staged = online.table_meta(unit, version)
    checks = []
    for expected in golden.tables:
        meta = staged.get(expected.table)
        if meta is None:
            raise VerificationError(
                f"{unit} {version}: table {expected.table} is not in Redis at {online.address}"
            )
        answers = online.read(unit, version, meta, list(expected.rows))
        checks.append(_compare_rows(context, manifest, meta, expected.rows, answers))
    return checks


def _compare_rows(
    context: ReleaseContext,
    manifest: Manifest,
    meta: TableMeta,
    expected: Mapping[str, Value],
    answers: Mapping[str, Value],
) -> str:
    for entity_id, value in expected.items():
        answer = answers.get(entity_id)
        if answer is None or not _same(value, answer, meta):
            raise VerificationError(
                f"{manifest.unit} {manifest.version}, table {meta.name}, id {entity_id}: Redis at "
                f"{context.online.address} answers {_short(answer)}, the trainer {_short(value)}"
            )
    return f"{len(expected)} rows of {meta.name} through Redis"


def _same(expected: Value, answer: Value, meta: TableMeta) -> bool:
    if meta.kind != "vector":
        return answer == expected
    stored, original = np.asarray(answer, np.float64), np.asarray(expected, np.float64)
    return stored.shape == original.shape and within_float16(stored, original)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _verify_model(
    context: ReleaseContext, manifest: Manifest, golden: Sequence[ScoredRequest]
) -> list[str]:
    inputs = serving_inputs([request.inputs for request in golden])
    checks = []
    for replica in context.settings.tf_serving:
        with ModelServer(replica, Patience.STEP) as server:
            ways: dict[str, Callable[..., list[float]]] = {
                f"gRPC at {replica.grpc}": server.predict_grpc,
                f"REST at {replica.rest}": server.predict_rest,
            }
            for way, predict in ways.items():
                scores = predict(manifest.unit, manifest.version, inputs)
                checks.append(_compare(manifest, way, golden, scores))
            one = rank_inputs([golden[-1].inputs])
            scores = server.predict_rest(manifest.unit, manifest.version, one, RANK_SIGNATURE)
            way = f"the signature for one user, REST at {replica.rest}"
            checks.append(_compare(manifest, way, golden[-1:], scores))
    return checks


def _verify_one_replica(
    context: ReleaseContext, manifest: Manifest, golden: Sequence[ScoredRequest]
) -> str:
    inputs = serving_inputs([request.inputs for request in golden])

    def verify(replica: Replica) -> str:
        with ModelServer(replica, Patience.STEP) as server:
            scores = server.predict_grpc(manifest.unit, manifest.version, inputs)
        return _compare(manifest, f"gRPC at {replica.grpc}", golden, scores)

    return first_to_answer(context.settings.tf_serving, verify)


def first_to_answer(replicas: Sequence[Replica], ask: Callable[[Replica], str]) -> str:
    """Return what the first replica answers for which `ask` does not fail.

    All are asked at once, and none is waited for once one has answered: a replica that hangs must
    not hold up a rollback.

    Raises:
        ServiceError: all have failed; the message has what each said.
    """
    pool = ThreadPoolExecutor(len(replicas), thread_name_prefix="replica")
    try:
        failures = []
        for answer in as_completed([pool.submit(ask, replica) for replica in replicas]):
            try:
                return answer.result()
            except FerryError as error:
                failures.append(str(error))
        raise ServiceError("; ".join(sorted(failures)))
    finally:
        pool.shutdown(wait=False)


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
