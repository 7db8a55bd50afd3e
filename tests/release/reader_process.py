"""A reader in a process of its own: reads without a pause, and counts what is wrong."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import NamedTuple

from pipelines.config import Settings
from pipelines.errors import FerryError
from pipelines.online.client import FerryClient
from pipelines.run import parse_version
from tests.release.versions import DIMENSION, USERS, weight

_KEPT = 5


class Readings(NamedTuple):
    """What a reader saw: reads, versions met, and the first few things that were wrong."""

    reads: int
    versions: set[int]
    wrong: list[str]


def read_until(
    settings: Settings, environment: dict[str, str], unit: str, stop: Event, channel: Connection
) -> None:
    """Read at full speed until `stop`; then send the :class:`Readings`."""
    os.environ.update(environment)
    versions: set[int] = set()
    wrong: list[str] = []
    reads = 0
    with FerryClient(settings) as client:
        channel.send("ready")
        while not stop.is_set():
            user = str(reads % USERS)
            try:
                version, problem = _READ[unit](client, user)
            except FerryError as error:
                problem = str(error)
            else:
                versions.add(version)
            if problem and len(wrong) < _KEPT:
                wrong.append(problem)
            reads += 1
    channel.send(Readings(reads, versions, wrong))


def _lists(client: FerryClient, user: str) -> tuple[int, str | None]:
    answer = client.recommend(user)
    _, attempt = parse_version(answer.version)
    ids = [item.item_id for item in answer.items]
    expected = [str(attempt), user, "1"]
    wrong = ids != expected or answer.note is not None
    return answer.version, f"{answer} is not {expected}" if wrong else None


def _vectors(client: FerryClient, item: str) -> tuple[int, str | None]:
    live = client.live("embeddings")
    _, attempt = parse_version(live.version)
    vector = live.read("item_vectors", [item]).get(item)
    wrong = vector != [float(attempt)] * DIMENSION
    return live.version, f"{live.version}: {item} has {vector}" if wrong else None


def _scores(client: FerryClient, user: str) -> tuple[int, str | None]:
    answer = client.rank(user, ["2"], "tf_serving")
    _, attempt = parse_version(answer.version)
    score = answer.items[0].score or 0.0
    wrong = abs(score - 3.5 * weight(attempt)) > 1e-5 or answer.note is not None
    return answer.version, f"{answer} is not by {weight(attempt)}" if wrong else None


_READ = {"recs": _lists, "embeddings": _vectors, "embedding_mlp": _scores}
