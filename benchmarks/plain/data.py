"""What the run handed over, as arrays; its holdout; and the best unseen items of each user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pipelines.lake import RunPaths

_LENGTH = 50
Matrix = NDArray[np.float32]


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
        events = events.filter(pc.is_in(events["item_id"], value_set=items["item_id"]))
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
