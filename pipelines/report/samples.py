"""What a few users get right now, from each way of serving."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipelines.errors import FerryError
from pipelines.models_config import RANKERS, Unit
from pipelines.online.client import Answer, FerryClient, Method, ScoredItem, SimilarSource
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Golden
from pipelines.release.state import live_version

log = logging.getLogger(__name__)

#: An id that no user has: the answers are those for somebody who was never seen.
STRANGER = "(stranger)"

_USERS = 3
_ITEMS = 10
_SIMILAR = 5
#: Tables with a row for each user with a history, and for each item.
_USER_TABLES = ("user_items", "user_vectors", "user_features")
_ITEM_TABLES = ("item_vectors", "item_features")
_METHODS: dict[Unit, Method] = {
    "embeddings": "embeddings",
    "interest_ranker": "interests",
    "ctr_pmml": "pmml",
    **dict.fromkeys(RANKERS, "tf_serving"),
}


class WayAnswer(BaseModel):
    """What one way of serving answered, or why it did not."""

    model_config = ConfigDict(frozen=True)

    way: str
    unit: str
    version: int | None = None
    items: list[ScoredItem] = []
    note: str | None = None
    missing: str | None = None


class SampleUser(BaseModel):
    """One user: their list, the same candidates ranked by each way, and what is like the first."""

    model_config = ConfigDict(frozen=True)

    user_id: str
    recommended: WayAnswer | None
    ranked: list[WayAnswer]
    similar_to: ScoredItem | None = None
    similar: list[WayAnswer] = []

    @property
    def is_stranger(self) -> bool:
        """Whether nobody has this id."""
        return self.user_id == STRANGER


def sample_users(
    context: ReleaseContext, units: Sequence[Unit], before: Sequence[str]
) -> list[SampleUser]:
    """Return what some users with a history get from `units` now, and a stranger, who is last.

    The users are those of `before` who still have a history, so that two days can be compared,
    and the first ones of the golden rows. A way that does not answer says why.
    """
    golden = _golden_rows(context, units)
    users = _with_history(context, golden, before)
    items = next((ids for ids in _ids(golden, _ITEM_TABLES)), [])[:_ITEMS]
    asker = _Asker(context.client, units, items)
    return [asker.sample(user) for user in (*users, STRANGER)]


def _golden_rows(context: ReleaseContext, units: Sequence[Unit]) -> dict[Unit, Golden]:
    """Return the golden rows of what is live."""
    found: dict[Unit, Golden] = {}
    for unit in units:
        version = live_version(context, unit)
        if version is None:
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="ferry-report-") as folder:
                manifest = context.registry.sealed(unit, version)
                found[unit] = context.registry.golden(manifest, Path(folder))
        except FerryError as error:
            log.warning("no sample users from %s %s: %s", unit, version, error)
    return found


def _ids(golden: dict[Unit, Golden], tables: Sequence[str]) -> Iterator[list[str]]:
    for rows in golden.values():
        for table in rows.tables:
            if table.table in tables:
                yield sorted(table.rows)


def _with_history(
    context: ReleaseContext, golden: dict[Unit, Golden], before: Sequence[str]
) -> list[str]:
    known = [user for user in before if user != STRANGER]
    for unit, rows in golden.items():
        for table in rows.tables:
            if table.table not in _USER_TABLES:
                continue
            try:
                left = context.client.live(unit).read(table.table, known) if known else {}
            except FerryError as error:
                # Each way of serving says on the page what it lacks.
                log.warning("the sample users of the report before can't be asked for: %s", error)
                left = {}
            chosen = dict.fromkeys([*(user for user in known if user in left), *sorted(table.rows)])
            return list(chosen)[:_USERS]
    return []


@dataclass(frozen=True)
class _Asker:
    """Asks each way of serving; one that failed is not asked again: it might hang each time."""

    client: FerryClient
    units: Sequence[Unit]
    fallback: Sequence[str]
    failed: dict[tuple[str, Unit], str] = field(default_factory=dict)

    def sample(self, user: str) -> SampleUser:
        recommended = None
        if "recs" in self.units:
            recommended = self._ask("list", "recs", partial(self.client.recommend, user, _ITEMS))
        shown = recommended.items if recommended else []
        liked = shown[0] if shown and user != STRANGER else None
        candidates = [item.item_id for item in shown] or self.fallback
        return SampleUser(
            user_id=user,
            recommended=recommended,
            ranked=self._ranked(user, candidates) if candidates else [],
            similar_to=liked,
            similar=self._similar(liked.item_id) if liked else [],
        )

    def _ranked(self, user: str, candidates: Sequence[str]) -> list[WayAnswer]:
        rank = partial(self.client.rank, user, candidates)
        return [
            self._ask(f"ranked by {method}", unit, partial(rank, method, unit))
            for unit, method in _METHODS.items()
            if unit in self.units
        ]

    def _similar(self, item_id: str) -> list[WayAnswer]:
        sources: dict[Unit, tuple[str, SimilarSource]] = {
            "embeddings": ("similar by embeddings", "embeddings"),
            "recs": ("similar by recs", "recs"),
        }
        return [
            self._ask(way, unit, partial(self.client.similar, item_id, _SIMILAR, source))
            for unit, (way, source) in sources.items()
            if unit in self.units
        ]

    def _ask(self, way: str, unit: Unit, question: Callable[[], Answer]) -> WayAnswer:
        if (way, unit) not in self.failed:
            try:
                answer = question()
            except FerryError as error:
                log.warning("%s, %s: %s", way, unit, error)
                self.failed[way, unit] = str(error)
            else:
                return WayAnswer(
                    way=way,
                    unit=answer.unit,
                    version=answer.version,
                    items=answer.items,
                    note=answer.note,
                )
        return WayAnswer(way=way, unit=unit, missing=self.failed[way, unit])
