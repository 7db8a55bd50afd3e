"""What a run costs beyond its models: the same five models by a plain script in one process.

No Spark, no Airflow, no store: the events and the catalogue that a finished run of the daily DAG
left are read with pyarrow, and numpy, scipy, gensim and LightGBM do the rest, by the same protocol.
Each model is evaluated on the run's own holdout and fitted again on everything; lists are made for
all users. Features are computed here too, from strictly earlier events. The two Keras parts are
Ferry's own trainers, on the features of this script.

The run's phases stand beside the script's parts, so that the table says where the rest goes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from math import sqrt
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from gensim.models import Word2Vec
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.sparse import csr_matrix

from benchmarks.overhead import whole_run
from benchmarks.setting import machine, save
from pipelines.config import PROJECT_ROOT, PipelineConfig, load_pipeline_config
from pipelines.evaluation.scores import auc
from pipelines.features.schema import GENRES, NUMBERS, SAMPLE_COLUMNS, USER_HISTORY
from pipelines.lake import RunPaths
from pipelines.models_config import AlsConfig, EaseConfig, RecsConfig
from pipelines.work_time import WorkTime, work_times

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_LIMIT = 2.5
_LENGTH = 50
_GRADIENT_STEPS = 3
Matrix = NDArray[np.float32]


class Part(NamedTuple):
    """What one part of the script took, and how good it is."""

    name: str
    seconds: float
    processor: float
    quality: str


@dataclass
class Clock:
    """The parts so far."""

    parts: list[Part] = field(default_factory=list)

    @contextmanager
    def part(self, name: str) -> Iterator[dict[str, float]]:
        """Time a part; what the block notes in the dictionary is its quality."""
        quality: dict[str, float] = {}
        began, before = time.perf_counter(), time.process_time()
        yield quality
        seconds, processor = time.perf_counter() - began, time.process_time() - before
        noted = ", ".join(f"{key} {value:.4f}" for key, value in quality.items())
        self.parts.append(Part(name, seconds, processor, noted))
        typer.echo(f"{name}: {seconds:.1f} s, {processor:.1f} s of processor time  {noted}")


@dataclass(frozen=True)
class Data:
    """Events in the order of user, time and item; users and items by number, in the ids' order."""

    events: pa.Table
    items: pa.Table
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    positive: NDArray[np.bool_]
    training: NDArray[np.bool_]
    holdout: NDArray[np.bool_]
    users: int

    @classmethod
    def read(cls, paths: RunPaths, threshold: float) -> Data:
        """Read what the run's feature job handed over."""
        items = pq.read_table(paths.items).sort_by("item_id")
        keys = [("user_id", "ascending"), ("timestamp", "ascending"), ("item_id", "ascending")]
        events = pq.read_table(paths.events).sort_by(keys)
        events = events.filter(pa.compute.is_in(events["item_id"], value_set=items["item_id"]))
        users, user = np.unique(events["user_id"].to_numpy(), return_inverse=True)
        # Events that are set aside are neither.
        marks = events["is_holdout"].to_numpy(zero_copy_only=False)
        return cls(
            events=events,
            items=items,
            user=user,
            item=np.searchsorted(items["item_id"].to_numpy(), events["item_id"].to_numpy()),
            positive=events["rating"].to_numpy() >= threshold,
            training=marks == False,  # noqa: E712 - None is neither
            holdout=marks == True,  # noqa: E712
            users=len(users),
        )

    def matrix(self, chosen: NDArray[np.bool_]) -> csr_matrix:
        """Return [users, items] with a 1 for each pair among the chosen events."""
        ones = np.ones(int(chosen.sum()), np.float32)
        shape = (self.users, len(self.items))
        found = csr_matrix((ones, (self.user[chosen], self.item[chosen])), shape)
        found.data[:] = 1
        return found


@dataclass(frozen=True)
class Holdout:
    """Whom the lists are for, what they have seen, and what they should find."""

    #: The users; the others have a row for each of them and a column for each item.
    rows: NDArray[np.int64]
    seen: csr_matrix
    relevant: NDArray[np.bool_]

    @classmethod
    def of(cls, data: Data) -> Holdout:
        """Take the users with a positive that is new to them."""
        seen = data.matrix(data.training)
        relevant = data.matrix(data.holdout & data.positive).toarray().astype(bool)
        relevant &= ~seen.toarray().astype(bool)
        rows = np.flatnonzero(relevant.any(axis=1))
        return cls(rows, seen[rows], relevant[rows])

    def ndcg(self, scores: Matrix) -> NDArray[np.float64]:
        """Return each user's NDCG@10 of scores [users, items]."""
        hits, relevant = self._hits(scores, 10)
        discounts = 1 / np.log2(np.arange(10) + 2)
        ideal = np.cumsum(discounts)[np.minimum(relevant, 10) - 1]
        return np.asarray(hits @ discounts / ideal)

    def measure(self, scores: Matrix) -> dict[str, float]:
        """Return the means of NDCG@10 and recall@50."""
        hits, relevant = self._hits(scores, _LENGTH)
        recall = float((hits.sum(axis=1) / relevant).mean())
        return {"NDCG@10": float(self.ndcg(scores).mean()), "recall@50": recall}

    def _hits(self, scores: Matrix, size: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        top = top_unseen(scores, self.seen, size)
        return np.take_along_axis(self.relevant, top, axis=1), self.relevant.sum(axis=1)


def top_unseen(scores: Matrix, seen: csr_matrix, size: int) -> NDArray[np.int64]:
    """Return the best unseen items [users, size] of scores [users, items]."""
    scores = np.where(seen.toarray() > 0, -np.inf, scores)
    top = np.argpartition(-scores, size, axis=1)[:, :size]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)


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


@dataclass
class _Statistics:
    """Running count, mean and spread (Welford)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.count += 1
            distance = value - self.mean
            self.mean += distance / self.count
            self.squares += distance * (value - self.mean)

    def values(self) -> list[float | None]:
        mean = self.mean if self.count else None
        return [mean, sqrt(self.squares / (self.count - 1)) if self.count > 1 else None]


@dataclass
class _User:
    rating: _Statistics = field(default_factory=_Statistics)
    year: _Statistics = field(default_factory=_Statistics)
    recent: list[int] = field(default_factory=list)
    genres: Counter[str] = field(default_factory=Counter)
    row: list[Any] = field(default_factory=list)


def features(data: Data, threshold: float, length: int) -> pa.Table:
    """Return the samples: each event with what was known before its moment."""
    attributes = dict(enumerate(data.items.select(["genres", "release_year"]).to_pylist()))
    times = data.events["timestamp"].cast(pa.int64(), safe=False).to_numpy()
    ids, ratings = data.events["item_id"].to_pylist(), data.events["rating"].to_pylist()
    numbers = data.item.tolist()
    of_items: list[list[Any]] = [[]] * len(numbers)
    rated: dict[int, _Statistics] = {}
    for same in _moments(data.item, times):
        known = rated.setdefault(numbers[same[0]], _Statistics())
        about = attributes[numbers[same[0]]]
        genres = [*(about["genres"] or []), None, None, None][:3]
        row = [about["release_year"], known.count, *known.values(), *genres]
        for event in same:
            of_items[event] = row
        for event in same:
            known.add(ratings[event])
    of_users: list[list[Any]] = [[]] * len(numbers)
    users: dict[int, _User] = {}
    for same in _moments(data.user, times):
        user = users.setdefault(int(data.user[same[0]]), _User())
        ranked = sorted(user.genres.items(), key=lambda entry: (-entry[1], entry[0]))[:5]
        genres = [*(genre for genre, _ in ranked), *[None] * (5 - len(ranked))]
        recent = [*user.recent[:5], *[None] * (5 - len(user.recent))]
        statistics = [user.rating.count, *user.rating.values(), *user.year.values()]
        row = [*recent, *statistics, *genres, user.recent]
        for event in same:
            of_users[event] = row
        for event in reversed(same):
            about = attributes[numbers[event]]
            user.rating.add(ratings[event])
            user.year.add(about["release_year"])
            if ratings[event] >= threshold:
                others = [other for other in user.recent if other != ids[event]]
                user.recent = [ids[event], *others][:length]
                user.genres.update(about["genres"] or [])
    rows = ([*u[:-1], *i, u[-1]] for u, i in zip(of_users, of_items, strict=True))
    names = SAMPLE_COLUMNS[7:]
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    label = pa.array(data.positive.astype(np.float64))
    first = data.events.select(list(SAMPLE_COLUMNS[:4])).append_column("label", label)
    marks = data.events.select(["is_holdout", "is_validation"])
    for name, values in zip(marks.column_names, marks.columns, strict=True):
        first = first.append_column(name, values)
    for name, values in columns.items():
        kind = {USER_HISTORY: pa.list_(pa.int64()), "release_year": pa.int32()}.get(name)
        if kind is None and name in NUMBERS and not name.endswith("_count"):
            kind = pa.float64()
        first = first.append_column(name, pa.array(values, kind))
    return first.filter(first["is_holdout"].is_valid())


def _moments(key: NDArray[np.int64], times: NDArray[np.int64]) -> Iterator[list[int]]:
    """Give the events of each key and moment, in the order of time."""
    order = np.lexsort((times, key))
    same = (np.diff(key[order]) == 0) & (np.diff(times[order]) == 0)
    for part in np.split(order, np.flatnonzero(~same) + 1):
        yield part.tolist()


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


def run_plainly(paths: RunPaths, config: PipelineConfig) -> list[Part]:
    """Do all five models over what the run handed over; returns the parts in their order."""
    clock = Clock()
    threshold = config.data.positive_rating
    with clock.part("reading"):
        data = Data.read(paths, threshold)
        holdout = Holdout.of(data)
    recommend(data, holdout, config, clock)
    embed(data, holdout, config, clock)
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        samples = Path(folder) / "samples"
        with clock.part("features"):
            samples.mkdir()
            table = features(data, threshold, config.features.history_length)
            pq.write_table(table, samples / "part-00000.parquet")
        trees(table, config, clock)
        with clock.part("import of TensorFlow"):
            import pipelines.models.rankers.unit  # noqa: F401
        for name in ("interest_ranker", "embedding_mlp"):
            keras_part(name, samples, config, Path(folder) / name, clock)
    return clock.parts


#: The script's parts beside the run's steps that do the same, and more.
_SAME: dict[str, Callable[[str], bool]] = {
    "ingest": lambda part: part == "reading",
    "features": lambda part: part == "features",
    "build recs": lambda part: part in ("ALS", "EASE", "blend", "lists for all"),
    "build embeddings": lambda part: part.startswith("item2vec"),
    "build ctr_pmml": lambda part: part.startswith("trees"),
    "build interest_ranker": lambda part: part == "interest_ranker",
    "build embedding_mlp": lambda part: part == "embedding_mlp",
}


def where(works: list[WorkTime], parts: list[Part]) -> list[str]:
    """Return a table: the run's steps, the script's seconds for the same, and Java's share."""
    lines = [
        "| step | run, s | script, s | Java: starting | compiling | garbage |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for work in works:
        seconds = (work.ended - work.began).total_seconds()
        same = _SAME.get(work.step)
        script = f"{sum(p.seconds for p in parts if same(p.name)):.1f}" if same else ""
        java = work.java
        spent = (java.starting, java.compiling, java.collecting) if java else ()
        cells = [f"{value:.1f}" for value in spent] or ["", "", ""]
        lines.append(f"| {work.step} | {seconds:.1f} | {script} | {' | '.join(cells)} |")
    return lines


def main(
    data: Annotated[
        Path | None, typer.Option(help="A MovieLens folder, or synthetic data.")
    ] = None,
    run_date: str = "2018-09-24",
    run: Annotated[
        Path | None, typer.Option(help="The hand-over folder of a finished run: none is made.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="What that run took; by default from its first step on.")
    ] = 0.0,
) -> None:
    """Measure, print and save."""
    if run:
        _report(RunPaths(str(run)), seconds)
    else:
        with whole_run(data, run_date) as made:
            _report(made.paths, made.wall)


def _report(paths: RunPaths, wall: float) -> None:
    works = work_times(paths)
    wall = wall or (max(w.ended for w in works) - works[0].began).total_seconds()
    parts = run_plainly(paths, load_pipeline_config(PROJECT_ROOT / "pipeline.yaml"))
    total = sum(part.seconds for part in parts)
    lines = [
        machine(),
        "",
        "| part | seconds | of processor time | quality |",
        "| --- | ---: | ---: | --- |",
        *(f"| {p.name} | {p.seconds:.1f} | {p.processor:.1f} | {p.quality} |" for p in parts),
        f"| all | {total:.1f} | {sum(part.processor for part in parts):.1f} | |",
        "",
        f"The run took {wall:.0f} s: {wall / total:.1f} times as long (at most {_LIMIT} wanted).",
        "Steps run beside each other.",
        "",
        *where(works, parts),
    ]
    table = "\n".join(lines) + "\n"
    print(table)
    figures = {"parts": [part._asdict() for part in parts], "run": wall, "ratio": wall / total}
    save("plain", {"machine": machine(), **figures}, table)


if __name__ == "__main__":
    typer.run(main)
