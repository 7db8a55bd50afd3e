"""The client: recommendations, similar items and rankings from what is live.

Every answer starts at the unit's pointer and reads that version only: keys of that version in
Redis, that version's PMML, exactly that version of the model. Unknown users and items get an
answer and a note that says which.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipelines.config import Settings
from pipelines.errors import ConfigError, ReleaseError, ServiceError
from pipelines.features.schema import ITEM_FEATURES, USER_FEATURES, USER_HISTORY
from pipelines.models_config import RANKERS
from pipelines.online.layout import TableMeta, Value
from pipelines.online.ranking_inputs import (
    Row,
    candidate_rows,
    light_row,
    pmml_rows,
    rank_inputs,
    serving_inputs,
)
from pipelines.online.store import OnlineStore, parse_feature_row
from pipelines.online.tf_serving import DEFAULT_SIGNATURE, RANK_SIGNATURE, Inputs, ModelServer
from pipelines.release.manifest import PMML_FILE
from pipelines.release.objects import ObjectStore
from pipelines.release.registry import Registry

if TYPE_CHECKING:
    from pipelines.online.pmml import PmmlScorer

Method = Literal["embeddings", "interests", "pmml", "tf_serving"]
#: Which unit's lists say what is similar: vectors that lie close, or what is liked together.
SimilarSource = Literal["embeddings", "recs"]

#: Which units answer which way of ranking; without a wish, the first one that is live.
RANKING_UNITS: dict[Method, tuple[str, ...]] = {
    "embeddings": ("embeddings",),
    "interests": ("interest_ranker",),
    "pmml": ("ctr_pmml",),
    "tf_serving": RANKERS,
}
_TABLES_REMEMBERED = 64
POPULAR = "popular"
POPULAR_ID = "all"
#: Before a genre's name in the ids of its popular items.
GENRE_PREFIX = "genre:"


class ScoredItem(BaseModel):
    """An item of an answer; `title` is None for an item that the catalogue does not have."""

    model_config = ConfigDict(frozen=True)

    item_id: str
    title: str | None
    score: float | None = None


class Answer(BaseModel):
    """Items, best first, with the unit and version that they come from."""

    model_config = ConfigDict(frozen=True)

    unit: str
    version: int
    items: list[ScoredItem]
    note: str | None = None


class LiveUnit:
    """One version of a unit, as the pointer named it when the request came."""

    def __init__(
        self, online: OnlineStore, unit: str, version: int, tables: Mapping[str, TableMeta]
    ) -> None:
        self.online = online
        self.unit = unit
        self.version = version
        self.tables = tables

    def meta(self, table: str) -> TableMeta:
        """Return how a table is laid out.

        Raises:
            ReleaseError: the version has no such table in Redis.
        """
        meta = self.tables.get(table)
        if meta is None:
            raise ReleaseError(
                f"{self.unit} {self.version} is live, but Redis at {self.online.address} "
                f"has no table {table} of it"
            )
        return meta

    def read(self, table: str, ids: Sequence[str]) -> dict[str, Value]:
        """Return the values of those `ids` that the table has."""
        return self.online.read(self.unit, self.version, self.meta(table), ids)


class FerryClient:
    """Answers from what is live; one per process, closed at the end.

    Every method raises ReleaseError if the unit has nothing live, and ServiceError, with the
    address, if a service does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.online = OnlineStore.connect(settings)
        # Immutable, as everything under a version is: read once.
        self._tables: dict[tuple[str, int], dict[str, TableMeta]] = {}
        self._servers: list[ModelServer] = []
        self._scorers: dict[str, tuple[int, PmmlScorer]] = {}

    def close(self) -> None:
        """Close the connections, and end what scores PMML."""
        self.online.close()
        for server in self._servers:
            server.close()
        for _, scorer in self._scorers.values():
            scorer.close()
        self._servers, self._scorers = [], {}

    def __enter__(self) -> FerryClient:
        """Return the client, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def live(self, unit: str) -> LiveUnit:
        """Return what the unit's pointer names now."""
        pointer = self.online.pointers.get(unit)
        if pointer is None:
            raise ReleaseError(
                f"nothing of {unit} is live in Redis at {self.online.address}: 'make run' "
                f"releases it, 'ferry restore {unit}' brings back what was lost"
            )
        version = pointer.version
        tables = self._tables.get((unit, version))
        if not tables:
            tables = self.online.table_meta(unit, version)
            if len(self._tables) >= _TABLES_REMEMBERED:
                self._tables.clear()
            self._tables[unit, version] = tables
        return LiveUnit(self.online, unit, version, tables)

    def recommend(self, user_id: str, count: int = 10, genre: str | None = None) -> Answer:
        """Return the user's best unseen items; popular items for a user without a list.

        `genre` is for the latter alone: the most popular items of that genre, if it has any.
        """
        live = self.live("recs")
        lists = live.read("user_items", [user_id])
        note = None
        if user_id not in lists:
            lists, note = self._popular(live, genre)
            note = (
                f"user {user_id} has no list of their own: these are the most popular items{note}"
            )
        ids = [str(item) for items in lists.values() for item in items][:count]
        titles = live.read("titles", ids)
        return Answer(unit=live.unit, version=live.version, items=_items(ids, titles), note=note)

    @staticmethod
    def _popular(live: LiveUnit, genre: str | None) -> tuple[dict[str, Value], str]:
        """Return the list to fall back on, and what to add to the note."""
        if genre is not None:
            lists = live.read(POPULAR, [GENRE_PREFIX + genre])
            if lists:
                return lists, f" of the genre {genre}"
        why = "" if genre is None else f" (there is no list of the genre {genre})"
        return live.read(POPULAR, [POPULAR_ID]), why

    def similar(
        self, item_id: str, count: int = 10, source: SimilarSource = "embeddings"
    ) -> Answer:
        """Return the items nearest to one item, most similar first.

        By `embeddings` with their cosine; by `recs`, what is liked by the same users, without a
        score.
        """
        live = self.live(source)
        if source == "recs":
            others = live.read("similar_items", [item_id]).get(item_id)
            ids = [] if others is None else [str(item) for item in others][:count]
            note = f"item {item_id} is unknown, or nobody liked it yet" if others is None else None
            titles = live.read("titles", ids)
            return Answer(
                unit=live.unit, version=live.version, items=_items(ids, titles), note=note
            )
        neighbours = live.read("neighbours", [item_id]).get(item_id)
        if neighbours is None:
            note = f"item {item_id} is unknown, or too rare to have a vector"
            return Answer(unit=live.unit, version=live.version, items=[], note=note)
        ids = [str(item) for item in neighbours][:count]
        vectors = live.read("item_vectors", [item_id, *ids])
        anchor = np.asarray(vectors[item_id], np.float32)
        scores = [_cosine(anchor, vectors.get(other)) for other in ids]
        return Answer(
            unit=live.unit,
            version=live.version,
            items=_items(ids, live.read("titles", ids), scores),
        )

    def rank(
        self, user_id: str, item_ids: Sequence[str], method: Method, unit: str | None = None
    ) -> Answer:
        """Return the candidates, best first for this user, scored by one of the four ways.

        `unit` says which of several rankers answers. Candidates that the method knows nothing of
        come last with score None (embeddings), or are scored as unknown items (all others).

        Raises:
            ConfigError: `unit` does not rank by this method.
        """
        candidates = list(dict.fromkeys(item_ids))
        live = self._ranking(method, unit)
        notes: list[str] = []
        scores: list[float | None]
        if method == "embeddings":
            scores = self._score_by_embeddings(live, user_id, candidates, notes)
        else:
            rows = self._rows(live, user_id, candidates, notes)
            scores = list(self._score_candidates(live, rows, method))
        order = sorted(
            range(len(candidates)),
            key=lambda i: (scores[i] is None, -(scores[i] or 0.0)),
        )
        ranked = [candidates[i] for i in order]
        return Answer(
            unit=live.unit,
            version=live.version,
            items=_items(ranked, self._titles(ranked), [scores[i] for i in order]),
            note="; ".join(notes) or None,
        )

    def _ranking(self, method: Method, unit: str | None) -> LiveUnit:
        units = RANKING_UNITS[method]
        if unit is not None:
            if unit not in units:
                raise ConfigError(f"{unit} does not rank by {method}: {', '.join(units)} do")
            return self.live(unit)
        live = (name for name in units if self.online.pointers.get(name) is not None)
        return self.live(next(live, units[0]))

    def _score_by_embeddings(
        self, live: LiveUnit, user_id: str, items: Sequence[str], notes: list[str]
    ) -> list[float | None]:
        user = live.read("user_vectors", [user_id]).get(user_id)
        if user is None:
            notes.append(f"user {user_id} has no vector: the candidates keep their order")
            return [None] * len(items)
        vectors = live.read("item_vectors", items)
        if unknown := [item for item in items if item not in vectors]:
            notes.append(f"no vector for {', '.join(unknown)}")
        anchor = np.asarray(user, np.float32)
        return [_cosine(anchor, vectors.get(item)) for item in items]

    def _rows(
        self, live: LiveUnit, user_id: str, items: Sequence[str], notes: list[str]
    ) -> list[Row]:
        users = live.read("user_features", [user_id])
        known = live.read("item_features", items)
        if user_id not in users:
            notes.append(f"user {user_id} is unknown: scored as a new user")
        if unknown := [item for item in items if item not in known]:
            notes.append(f"unknown items, scored as new ones: {', '.join(unknown)}")
        user = parse_feature_row(str(users[user_id]), USER_FEATURES) if users else None
        features = {
            item: parse_feature_row(str(known[item]), ITEM_FEATURES) if item in known else None
            for item in items
        }
        rows = candidate_rows(user_id, user, features)
        if "interests" in live.tables:
            interests = self._vectors(live, "interests", [user_id])[0]
            vectors = self._vectors(live, "item_vectors", items)
            return [
                light_row(row, interests, vector) for row, vector in zip(rows, vectors, strict=True)
            ]
        if USER_HISTORY in live.tables:
            history = live.read(USER_HISTORY, [user_id]).get(user_id, [])
            return [{**row, USER_HISTORY: history} for row in rows]
        return rows

    def _vectors(self, live: LiveUnit, table: str, ids: Sequence[str]) -> list[Any]:
        """Return a vector for each id; one that the table does not have is all None."""
        known = live.read(table, ids)
        missing = [None] * live.meta(table).dimension
        return [known.get(entity_id, missing) for entity_id in ids]

    def score(self, live: LiveUnit, rows: Sequence[Row], method: Method) -> list[float]:
        """Return the model's score of each row of raw features, by exactly the live version."""
        if method == "pmml":
            return self.pmml(live.unit, live.version).score(pmml_rows(rows))
        return self._predict(live, serving_inputs(rows), DEFAULT_SIGNATURE)

    def _score_candidates(self, live: LiveUnit, rows: Sequence[Row], method: Method) -> list[float]:
        if method == "pmml":
            return self.score(live, rows, method)
        return self._predict(live, rank_inputs(rows), RANK_SIGNATURE)

    def _predict(self, live: LiveUnit, inputs: Inputs, signature: str) -> list[float]:
        failures = []
        for server in self._replicas():
            try:
                return server.predict_rest(live.unit, live.version, inputs, signature)
            except ServiceError as error:
                failures.append(str(error))
                # Asked last from now on: one that hangs must not slow down every request.
                self._servers.remove(server)
                self._servers.append(server)
        raise ServiceError("; ".join(failures))

    def pmml(self, unit: str, version: int) -> PmmlScorer:
        """Return the scorer of a version's PMML; the last one of each unit is kept."""
        from pipelines.online.pmml import PmmlScorer

        known = self._scorers.get(unit)
        if known and known[0] == version:
            return known[1]
        registry = Registry(ObjectStore.connect(self.settings))
        manifest = registry.sealed(unit, version)
        entry = next(e for e in manifest.files if e.name == PMML_FILE)
        with tempfile.TemporaryDirectory(prefix="ferry-pmml-") as folder:
            path = Path(folder) / entry.name
            registry.download(manifest, entry, path)
            scorer = PmmlScorer(path)
        self._scorers[unit] = (version, scorer)
        if known:
            known[1].close()
        return scorer

    def _replicas(self) -> list[ModelServer]:
        if not self._servers:
            self._servers = [ModelServer(replica) for replica in self.settings.tf_serving]
        return list(self._servers)

    def _titles(self, ids: Sequence[str]) -> dict[str, Value]:
        """Return titles from whichever unit that carries them is live; none is no error."""
        for unit in ("recs", "embeddings"):
            if self.online.pointers.get(unit) is not None:
                return self.live(unit).read("titles", ids)
        return {}


def _cosine(anchor: np.ndarray, other: Value | None) -> float | None:
    if other is None:
        return None
    vector = np.asarray(other, np.float32)
    norms = float(np.linalg.norm(anchor) * np.linalg.norm(vector))
    return float(anchor @ vector) / norms if norms else 0.0


def _items(
    ids: Sequence[str], titles: dict[str, Value], scores: Sequence[float | None] | None = None
) -> list[ScoredItem]:
    return [
        ScoredItem(
            item_id=item,
            title=str(titles[item]) if item in titles else None,
            score=scores[position] if scores else None,
        )
        for position, item in enumerate(ids)
    ]
