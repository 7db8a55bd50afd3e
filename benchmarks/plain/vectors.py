"""Vectors of items and users by item2vec, and each item's neighbours."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from gensim.models import Word2Vec
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.plain.clock import Clock
from benchmarks.plain.data import Data, Holdout, Matrix
from pipelines.config import PipelineConfig


def item2vec(
    data: Data, chosen: NDArray[np.bool_], config: PipelineConfig
) -> tuple[Matrix, Matrix]:
    """Return vectors of length 1 of items and of users, NaN for none."""
    settings = config.models.embeddings
    counts = np.bincount(data.item[chosen], minlength=len(data.items))
    kept = chosen & (counts[data.item] >= settings.min_count)
    words = list(map(str, data.item[kept]))
    ends = np.cumsum(np.bincount(data.user[kept], minlength=data.users))
    sentences = [words[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    model = Word2Vec(
        sentences,
        vector_size=settings.dimension,
        window=settings.item2vec.window,
        epochs=settings.item2vec.iterations,
        sg=1,
        hs=1,
        negative=0,
        sample=0,
        min_count=1,
        workers=1,
        seed=config.seed,
    )
    items = np.full((len(data.items), settings.dimension), np.nan, np.float32)
    items[[int(word) for word in model.wv.index_to_key]] = model.wv.get_normed_vectors()
    seconds = data.events["timestamp"].cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    moments = seconds.to_numpy()[kept]
    newest = np.zeros(data.users)
    np.maximum.at(newest, data.user[kept], moments)
    age = (newest[data.user[kept]] - moments) / 86_400
    weight = 0.5 ** (age / settings.user_half_life_days)
    shape = (data.users, len(data.items))
    mixed = csr_matrix((weight, (data.user[kept], data.item[kept])), shape) @ np.nan_to_num(items)
    length = np.linalg.norm(mixed, axis=1, keepdims=True)
    return items, (mixed / np.where(length > 0, length, np.nan)).astype(np.float32)


def embed(data: Data, holdout: Holdout, config: PipelineConfig, clock: Clock) -> None:
    """Evaluate item2vec as a ranking by cosine, fit again on everything, and find neighbours."""
    with clock.part("item2vec, evaluated") as quality:
        items, users = item2vec(data, data.training & data.positive, config)
        popular = np.bincount(data.item[data.training & data.positive], minlength=len(items))
        cosines = users[holdout.rows] @ items.T
        # As in Ferry: what has no vector is behind, by popularity.
        behind = (popular / (1 + popular.max()) - 10)[None, :].astype(np.float32)
        quality.update(holdout.measure(np.where(np.isnan(cosines), behind, cosines)))
    with clock.part("item2vec, released"):
        items, _ = item2vec(data, data.positive, config)
        known = items[~np.isnan(items[:, 0])]
        cosines = known @ known.T
        np.fill_diagonal(cosines, -1)
        np.argpartition(-cosines, config.models.embeddings.neighbours, axis=1)
