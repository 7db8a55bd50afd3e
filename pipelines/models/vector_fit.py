"""A fit that ranks items by vectors: kept as Parquet, read back, and measured on a holdout.

Both list-making units are evaluated through what they keep, so that a live version that is judged
again on a later holdout goes through exactly the code that the new one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from pipelines.evaluation.ranking import holdout_users
from pipelines.features.schema import IS_HOLDOUT, ITEM_ID
from pipelines.models.base import BuildInputs
from pipelines.models.interactions import by_user_and_item, read_catalogue
from pipelines.models.stored import tidy_spark_files
from pipelines.models.topn import Candidates, top_unseen

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class VectorFit:
    """User and item vectors (array<float>).

    `users` has ``id`` and ``vector``; `items` item_id, ``popularity`` and ``vector``, which is
    null for items without one. Items that nobody liked may be absent.
    """

    users: DataFrame
    items: DataFrame

    def keep(self, folder: Path) -> VectorFit:
        """Write the fit to `folder`, and return it as it is read from there."""
        items = self.items.where("popularity > 0").select(ITEM_ID, "popularity", "vector")
        self.users.select("id", "vector").write.parquet(str(folder / "users"))
        items.write.parquet(str(folder / "items"))
        tidy_spark_files(folder)
        return VectorFit.read(self.users.sparkSession, folder)

    @classmethod
    def read(cls, spark: SparkSession, folder: Path) -> VectorFit:
        """Return the fit that :meth:`keep` wrote."""
        users, items = (spark.read.parquet(str(folder / name)) for name in ("users", "items"))
        return cls(users, items)

    def candidates(self, catalogue: DataFrame) -> Candidates:
        """Return the items of `catalogue` (item_id, item); unknown ones rank behind all others."""
        known = catalogue.join(self.items, ITEM_ID, "left").fillna(0, ["popularity"])
        return Candidates.collect(known, ITEM_ID)


@dataclass(frozen=True)
class ListHoldout:
    """A run's holdout, as list-making models are evaluated on it.

    `catalogue` has item_id and item, `training` user_id, item and is_positive; `users` are those
    of :func:`pipelines.evaluation.ranking.holdout_users`.
    """

    catalogue: DataFrame
    training: DataFrame
    users: DataFrame

    def lists(self, candidates: Candidates, vectors: DataFrame, length: int) -> DataFrame:
        """Return the lists of `length` unseen items that a fit gives the holdout's users.

        `vectors` has ``id`` and ``vector``; users without one get the most popular items.
        """
        users = self.users.join(vectors, "id", "left")
        return top_unseen(users, candidates, length)


@contextmanager
def list_holdout(
    spark: SparkSession, inputs: BuildInputs, events: DataFrame
) -> Iterator[ListHoldout]:
    """Give the holdout among `events` (as :func:`read_events` returns them), cached."""
    catalogue = read_catalogue(spark, inputs).cache()
    training = by_user_and_item(events.where(~sf.col(IS_HOLDOUT)), catalogue).cache()
    holdout = by_user_and_item(events.where(IS_HOLDOUT), catalogue)
    users = holdout_users(training, holdout).cache()
    try:
        yield ListHoldout(catalogue, training, users)
    finally:
        for frame in (users, training, catalogue):
            frame.unpersist()
