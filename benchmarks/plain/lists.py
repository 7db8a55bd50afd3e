"""The users' lists: ALS, EASE, and their blend with popularity."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.sparse import csr_matrix

from benchmarks.plain.clock import Clock
from benchmarks.plain.data import Data, Holdout, Matrix, top_unseen
from pipelines.config import PipelineConfig
from pipelines.models_config import AlsConfig, EaseConfig, RecsConfig

_GRADIENT_STEPS = 3


def als(likes: csr_matrix, config: AlsConfig, seed: int) -> tuple[Matrix, Matrix]:
    """Fit user and item factors for implicit feedback, with Spark's scaling of the penalty.

    Each half of an iteration goes some steps of conjugate gradients from where it was, for all rows
    at once (Takacs, Pilaszy, Tikk 2011), as the library `implicit` does.
    """
    rng = np.random.default_rng(seed)
    users, items = (
        (rng.normal(size=(n, config.rank)) / sqrt(config.rank)).astype(np.float32)
        for n in likes.shape
    )
    columns = likes.T.tocsr()
    for _ in range(config.iterations):
        items = _improved(columns, items, users, config)
        users = _improved(likes, users, items, config)
    return users, items


def _improved(likes: csr_matrix, found: Matrix, others: Matrix, config: AlsConfig) -> Matrix:
    gram = others.T @ others
    counts = np.diff(likes.indptr)
    rows = np.repeat(np.arange(len(counts)), counts)
    penalty = (config.regularization * counts[:, None]).astype(np.float32)
    liked = others[likes.indices]

    def product(vectors: Matrix) -> Matrix:
        dots = np.einsum("nd,nd->n", liked, vectors[rows])
        weighted = csr_matrix((dots, likes.indices, likes.indptr), likes.shape)
        return np.asarray(vectors @ gram + config.alpha * (weighted @ others) + penalty * vectors)

    found = np.where(counts[:, None] > 0, found, 0)
    rest = (1 + config.alpha) * (likes @ others) - product(found)
    direction, length = rest, (rest * rest).sum(axis=1, keepdims=True)
    for _ in range(_GRADIENT_STEPS):
        ahead = product(direction)
        step = length / np.maximum((direction * ahead).sum(axis=1, keepdims=True), 1e-30)
        found, rest = found + step * direction, rest - step * ahead
        longer = (rest * rest).sum(axis=1, keepdims=True)
        direction = rest + longer / np.maximum(length, 1e-30) * direction
        length = longer
    return np.asarray(found, np.float32)


def ease(likes: csr_matrix, config: EaseConfig) -> csr_matrix:
    """Return the kept weights [items, items]."""
    counts = np.asarray(likes.sum(axis=0)).ravel()
    popular = np.argsort(-counts, kind="stable")[: config.max_items]
    known = np.sort(popular[counts[popular] >= config.min_users])
    part = likes[:, known]
    gram = np.asfortranarray((part.T @ part).toarray().astype(np.float64))
    gram[np.diag_indices(len(known))] += config.regularization
    inverse, _ = dpotri(dpotrf(gram, lower=1, overwrite_a=1)[0], lower=1, overwrite_c=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = (-inverse / inverse.diagonal()).astype(np.float32)
    np.fill_diagonal(weights, 0)
    kept = min(config.kept, len(known) - 1)
    columns = np.argpartition(-np.abs(weights), kept, axis=1)[:, :kept]
    values = np.take_along_axis(weights, columns, axis=1)
    rows = np.repeat(known, kept)
    size = likes.shape[1]
    return csr_matrix((values.ravel(), (rows, known[columns].ravel())), (size, size))


def recency(data: Data, chosen: NDArray[np.bool_], half_life: float | None) -> csr_matrix:
    """Return [users, items]: what the history of each user counts, the latest like most."""
    user, item = data.user[chosen][::-1], data.item[chosen][::-1]
    _, starts, lengths = np.unique(-user, return_index=True, return_counts=True)
    age = np.arange(len(user)) - np.repeat(starts, lengths)
    counts = np.exp2(-age / half_life) if half_life else np.ones(len(age))
    shape = (data.users, len(data.items))
    return csr_matrix((counts.astype(np.float32), (user, item)), shape)


def standardised(scores: Matrix) -> Matrix:
    """Return rows with mean 0 and deviation 1."""
    scores = scores - scores.mean(axis=1, keepdims=True)
    deviation = scores.std(axis=1, keepdims=True)
    return np.asarray(scores / np.where(deviation > 1e-12, deviation, 1), np.float32)


def components(
    data: Data, chosen: NDArray[np.bool_], config: RecsConfig, seed: int, clock: Clock
) -> tuple[Matrix, Matrix, Matrix]:
    """Return what is blended [users, items]: scores of ALS, of EASE, and of popularity."""
    likes = data.matrix(chosen)
    popular = np.asarray(likes.sum(axis=0)).ravel()
    liked = popular > 0
    with clock.part("ALS"):
        users, items = als(likes, config.als, seed)
    with clock.part("EASE"):
        history = recency(data, chosen, config.ease.history_half_life)
        by_ease = (history @ ease(likes, config.ease)).toarray()
    found = []
    for scores in (users @ items.T, by_ease, np.log1p(popular)[None, :]):
        whole = np.full((len(scores), len(liked)), -1e6, np.float32)
        whole[:, liked] = standardised(scores[:, liked].astype(np.float32))
        found.append(whole)
    return found[0], found[1], found[2]


def recommend(data: Data, holdout: Holdout, config: PipelineConfig, clock: Clock) -> None:
    """Evaluate ALS, EASE and their blend, fit again on everything, and make lists for all users."""
    recs, seed = config.models.recs, config.seed
    parts = components(data, data.training & data.positive, recs, seed, clock)
    with clock.part("blend") as quality:
        by_als, by_ease, popular = (part[holdout.rows] if len(part) > 1 else part for part in parts)
        tried = [(s, 1 - s, p) for s in (0, 0.2, 0.4, 0.6, 0.8, 1) for p in (0.0, 0.1)]
        gains = [holdout.ndcg(a * by_als + e * by_ease + p * popular) for a, e, p in tried]
        # Each half of the users is ranked with the weights that the other half prefers.
        half = holdout.rows % 2
        chosen = [int(np.argmax([g[half == 1 - n].mean() for g in gains])) for n in (0, 1)]
        weights = np.array([tried[chosen[n]] for n in half], np.float32)[:, :, None]
        blended = weights[:, 0] * by_als + weights[:, 1] * by_ease + weights[:, 2] * popular
        quality.update(holdout.measure(blended))
        best = tried[int(np.argmax([g.mean() for g in gains]))]
    by_als, by_ease, popular = components(data, data.positive, recs, seed, clock)
    with clock.part("lists for all"):
        blended = best[0] * by_als + best[1] * by_ease + best[2] * popular
        top_unseen(blended, data.matrix(np.ones(len(data.user), bool)), recs.list_size)
