"""The page "Try it": what each way of serving answers for one user, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.errors import FerryError, ReleaseError
from pipelines.online.client import RANKING_UNITS, Answer, FerryClient, Method
from pipelines.report.frame import render_in_frame

LISTS = "precomputed lists"
_TITLES: dict[Method, str] = {
    "embeddings": "embeddings",
    "interests": "interest vectors + light model",
    "pmml": "PMML",
    "tf_serving": "TensorFlow Serving",
}
_COUNT = 10
MAX_ITEMS = 50


@dataclass(frozen=True)
class Way:
    """What one way of serving answers, and how long that took; or why it does not."""

    title: str
    answer: Answer | None = None
    milliseconds: float = 0.0
    error: str | None = None
    #: Whether it ought to answer and does not, other than one that is not live.
    is_broken: bool = False


def ask_every_way(client: FerryClient, user_id: str, items: Sequence[str] = ()) -> list[Way]:
    """Return the user's list, and the candidates as each way of ranking orders them.

    The candidates are the `items`, or what the list recommends. A way that fails says why and
    leaves the others alone.

    Raises:
        ServiceError: Redis, where every way begins, does not answer.
    """
    client.online.ping()
    lists = _ask(LISTS, lambda: client.recommend(user_id, _COUNT))
    candidates = list(dict.fromkeys(items))
    if not candidates and lists.answer:
        candidates = [item.item_id for item in lists.answer.items]
    ways = [lists, *(_rank(client, user_id, candidates, method) for method in RANKING_UNITS)]
    if any(way.is_broken for way in ways):
        # The next question begins with new connections and a new Java process.
        client.scoring.close()
    return ways


def _rank(client: FerryClient, user_id: str, items: Sequence[str], method: Method) -> Way:
    title = _TITLES[method]
    if not items:
        return Way(title, error="nothing to rank: give items")
    if method == "pmml":
        # A reader loads the model once, not with a request.
        loaded = _ask(title, lambda: _load_pmml(client))
        if loaded.error:
            return loaded
    return _ask(title, lambda: client.rank(user_id, items, method))


def _load_pmml(client: FerryClient) -> None:
    (unit,) = RANKING_UNITS["pmml"]
    live = client.live(unit)
    client.scoring.pmml(live.unit, live.version)


def _ask(title: str, question: Callable[[], Answer | None]) -> Way:
    start = time.perf_counter()
    try:
        answer = question()
    except FerryError as error:
        return Way(title, error=str(error), is_broken=not isinstance(error, ReleaseError))
    return Way(title, answer, (time.perf_counter() - start) * 1000)


def render_try(user_id: str, items: Sequence[str], ways: Sequence[Way], base: str) -> str:
    """Return the page; without `ways` it is the form alone."""
    content = {"user": user_id, "items": " ".join(items), "ways": ways, "most": MAX_ITEMS}
    return render_in_frame("try_it.html.jinja", base, "try", content)
