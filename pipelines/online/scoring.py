"""Scores by the model of a live version: what it is asked with, and who answers.

Features come from the version's own tables in Redis, so that they and the model never differ.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.config import Settings
from pipelines.errors import ServiceError
from pipelines.features.schema import ITEM_FEATURES, USER_FEATURES, USER_HISTORY
from pipelines.online.live import LiveUnit
from pipelines.online.ranking_inputs import (
    Row,
    candidate_rows,
    light_row,
    pmml_rows,
    rank_inputs,
    serving_inputs,
)
from pipelines.online.store import parse_feature_row
from pipelines.online.tf_serving import DEFAULT_SIGNATURE, RANK_SIGNATURE, Inputs, ModelServer
from pipelines.patience import Patience
from pipelines.release.manifest import PMML_FILE
from pipelines.release.objects import ObjectStore
from pipelines.release.registry import Registry

if TYPE_CHECKING:
    from pipelines.online.pmml import PmmlScorer

Scorer = Literal["pmml", "tf_serving"]


class Scoring:
    """The model servers, and the PMML scorers of this process; closed at the end."""

    def __init__(self, settings: Settings, patience: Patience = Patience.READER) -> None:
        self.settings = settings
        self._patience = patience
        self._servers: list[ModelServer] = []
        self._scorers: dict[str, tuple[int, PmmlScorer]] = {}

    def close(self) -> None:
        """Close the connections, and end what scores PMML."""
        for server in self._servers:
            server.close()
        for _, scorer in self._scorers.values():
            scorer.close()
        self._servers, self._scorers = [], {}

    def score(self, live: LiveUnit, rows: Sequence[Row], by: Scorer) -> list[float]:
        """Return the model's score of each row of raw features, by exactly the live version."""
        if by == "pmml":
            return self.pmml(live.unit, live.version).score(pmml_rows(rows))
        return self._predict(live, serving_inputs(rows), DEFAULT_SIGNATURE)

    def score_candidates(self, live: LiveUnit, rows: Sequence[Row], by: Scorer) -> list[float]:
        """Return the same of rows that are all about one user, who is sent once."""
        if by == "pmml":
            return self.score(live, rows, by)
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
        registry = Registry(ObjectStore.connect(self.settings, self._patience))
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


def candidates_of(
    live: LiveUnit, user_id: str, items: Sequence[str]
) -> tuple[list[Row], list[str]]:
    """Return the model's raw inputs for each candidate of a user, and notes on what is unknown."""
    notes = []
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
        interests = _vectors(live, "interests", [user_id])[0]
        vectors = _vectors(live, "item_vectors", items)
        rows = [
            light_row(row, interests, vector) for row, vector in zip(rows, vectors, strict=True)
        ]
    elif USER_HISTORY in live.tables:
        history = live.read(USER_HISTORY, [user_id]).get(user_id, [])
        rows = [{**row, USER_HISTORY: history} for row in rows]
    return rows, notes


def _vectors(live: LiveUnit, table: str, ids: Sequence[str]) -> list[Any]:
    """Return a vector for each id; one that the table does not have is all None."""
    known = live.read(table, ids)
    missing = [None] * live.meta(table).dimension
    return [known.get(entity_id, missing) for entity_id in ids]
