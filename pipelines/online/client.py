"""The client: recommendations, similar items and rankings from what is live.

Every answer starts at the unit's pointer and reads that version only: keys of that version in
Redis, that version's PMML, exactly that version of the model. Unknown users and items get an
answer and a note that says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipelines.config import Settings
from pipelines.errors import ConfigError
from pipelines.models_config import RANKERS
from pipelines.online.layout import Value
from pipelines.online.live import LiveUnit, LiveUnits
from pipelines.online.scoring import Scorer, Scoring, candidates_of
from pipelines.online.store import OnlineStore
from pipelines.patience import Patience

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


class FerryClient:
    """Answers from what is live; one per process, closed at the end.

    Every method raises ReleaseError if the unit has nothing live, and ServiceError, with the
    address, if a service does not answer.
    """

    def __init__(self, settings: Settings, patience: Patience = Patience.READER) -> None:
        self.settings = settings
        self.online = OnlineStore.connect(settings, patience)
        self.scoring = Scoring(settings, patience)
        self._units = LiveUnits(self.online)

    def close(self) -> None:
        """Close the connections, and end what scores PMML."""
        self.online.close()
        self.scoring.close()

    def __enter__(self) -> FerryClient:
        """Return the client, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def live(self, unit: str) -> LiveUnit:
        """Return what the unit's pointer names now."""
        return self._units.take(unit)

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
        scores: list[float | None]
        if method == "embeddings":
            scores, notes = _score_by_embeddings(live, user_id, candidates)
        else:
            rows, notes = candidates_of(live, user_id, candidates)
            by: Scorer = "pmml" if method == "pmml" else "tf_serving"
            scores = list(self.scoring.score_candidates(live, rows, by))
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
        live = (name for name in units if self._units.is_live(name))
        return self.live(next(live, units[0]))

    def _titles(self, ids: Sequence[str]) -> dict[str, Value]:
        """Return titles from whichever unit that carries them is live; none is no error."""
        for unit in ("recs", "embeddings"):
            if self._units.is_live(unit):
                return self.live(unit).read("titles", ids)
        return {}


def _score_by_embeddings(
    live: LiveUnit, user_id: str, items: Sequence[str]
) -> tuple[list[float | None], list[str]]:
    """Return the cosine of the user's vector with each item's, and notes on what has none."""
    user = live.read("user_vectors", [user_id]).get(user_id)
    if user is None:
        note = f"user {user_id} has no vector: the candidates keep their order"
        return [None] * len(items), [note]
    vectors = live.read("item_vectors", items)
    unknown = [item for item in items if item not in vectors]
    notes = [f"no vector for {', '.join(unknown)}"] if unknown else []
    anchor = np.asarray(user, np.float32)
    return [_cosine(anchor, vectors.get(item)) for item in items], notes


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
