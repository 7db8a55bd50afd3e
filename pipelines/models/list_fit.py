"""What the users' lists are made from, fitted, kept as Parquet, and read back.

The live version is judged again on a later holdout through what it kept: its user vectors and
histories, its items and its weights, so with what it knew and no more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as sf
from pyspark.sql.types import ArrayType, StructField, StructType
from scipy.sparse import csr_matrix

from pipelines.features.schema import ITEM_ID, USER_ID
from pipelines.models.als import fit_factors
from pipelines.models.blend import Blend, BlendWeights
from pipelines.models.ease import fit_ease
from pipelines.models.exploration import Exploration, new_items
from pipelines.models.interactions import IS_POSITIVE, ITEM, LIKED_AT, number_ids
from pipelines.models.popularity import popularity
from pipelines.models.stored import tidy_spark_files
from pipelines.models.topn import Candidates, top_unseen, vector_matrix
from pipelines.models_config import RecsConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

_IS_NEW = "is_new"
_VECTOR = "array<float>"


@dataclass(frozen=True)
class ListFit:
    """The fitted models.

    `users` has ``id``, ``vector`` (array<float>, null if ALS is off) and ``history`` (array of the
    item ids that the user liked, newest first; null if EASE is off), for each user with a
    positive. `items` has item_id, ``popularity`` (bigint), ``is_new`` (boolean) and ``vector``;
    items that nobody liked and that are not new may be absent. `entries` are EASE's weights, see
    :func:`pipelines.models.ease.fit_ease`, on the driver; None if it is off.
    """

    users: DataFrame
    items: DataFrame
    entries: pa.Table | None
    history_half_life: float | None

    @classmethod
    def fit(cls, pairs: DataFrame, catalogue: DataFrame, config: RecsConfig, seed: int) -> ListFit:
        """Fit the models that are on to `pairs`, which should be cached.

        `pairs` are those of :func:`pipelines.models.interactions.by_user_and_item`, `catalogue` has
        item_id and item.

        Raises:
            DataError: the driver has not enough memory for EASE.
        """
        likes = pairs.where(IS_POSITIVE)
        new = new_items(pairs, catalogue, config.exploration).withColumn(_IS_NEW, sf.lit(True))
        items = (
            popularity(pairs, catalogue)
            .join(new, ITEM, "left")
            .fillna(value=False, subset=[_IS_NEW])
        )
        if config.als.enabled:
            factors = fit_factors(pairs, config.als, seed)
            items = items.join(factors.items, ITEM, "left")
            users = factors.users.withColumnRenamed(USER_ID, "id")
        else:
            items = items.withColumn("vector", sf.lit(None).cast(_VECTOR))
            users = likes.select(sf.col(USER_ID).alias("id")).distinct()
            users = users.withColumn("vector", sf.lit(None).cast(_VECTOR))
        entries = fit_ease(pairs, catalogue, config.ease) if config.ease.enabled else None
        if entries is None:
            id_type = catalogue.schema[ITEM_ID].dataType.simpleString()
            users = users.withColumn("history", sf.lit(None).cast(f"array<{id_type}>"))
        else:
            users = users.join(_histories(likes, catalogue), "id")
        return cls(
            users.select("id", "vector", "history"),
            items.select(ITEM_ID, "popularity", _IS_NEW, "vector"),
            entries,
            config.ease.history_half_life,
        )

    def keep(self, folder: Path) -> ListFit:
        """Write the fit to `folder`, and return it as it is read from there."""
        known = self.items.where(f"popularity > 0 or {_IS_NEW}")
        self.users.write.parquet(str(folder / "users"))
        known.write.parquet(str(folder / "items"))
        tidy_spark_files(folder)
        if self.entries is not None:
            (folder / "item_weights").mkdir()
            half_life = "" if self.history_half_life is None else str(self.history_half_life)
            entries = self.entries.replace_schema_metadata({"history_half_life": half_life})
            pq.write_table(entries, folder / "item_weights" / "part-00000.parquet")
        return ListFit.read(self.users.sparkSession, folder)

    @classmethod
    def read(cls, spark: SparkSession, folder: Path) -> ListFit:
        """Return the fit that :meth:`keep` wrote."""
        users, items = (spark.read.parquet(str(folder / name)) for name in ("users", "items"))
        entries, half_life = None, None
        if (folder / "item_weights").exists():
            entries = pq.read_table(folder / "item_weights" / "part-00000.parquet")
            half_life = float((entries.schema.metadata or {})[b"history_half_life"] or 0) or None
        return cls(users, items, entries, half_life)

    def blend(self, catalogue: DataFrame, weights: BlendWeights) -> Blend:
        """Return what ranks the items of `catalogue` (item_id, item) with these weights."""
        table = (
            catalogue.join(self.items, ITEM_ID, "left")
            .fillna(0, ["popularity"])
            .select(ITEM_ID, ITEM, "popularity", "vector")
            .toArrow()
            .sort_by(ITEM)
        )
        ids = table[ITEM_ID].combine_chunks()
        counts = table["popularity"].to_numpy()
        places = np.empty(len(counts), np.int64)
        places[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        liked = np.flatnonzero(counts)
        vectors = vector_matrix(table["vector"].combine_chunks().take(pa.array(liked)))
        logarithms = np.log1p(counts[liked])
        deviation = logarithms.std() if len(liked) else 0.0
        popular = (logarithms - logarithms.mean()) / deviation if deviation else 0 * logarithms
        return Blend(
            ids=ids,
            places=places,
            liked=liked,
            popularity=popular.astype(np.float32),
            vectors=None if np.isnan(vectors).all() else vectors,
            weights=None if self.entries is None else _matrix(self.entries, ids, liked),
            history_half_life=self.history_half_life,
            blend=weights,
        )

    def exploration(
        self, catalogue: DataFrame, config: RecsConfig, run_date: date, seed: int
    ) -> Exploration | None:
        """Return how a run's lists show the items that are new to this fit; None if they don't."""
        known = catalogue.join(self.items.where(_IS_NEW), ITEM_ID)
        numbers = np.sort(known.select(ITEM).toArrow()[ITEM].to_numpy()).astype(np.int64)
        return Exploration.plan(numbers, config.exploration, config.list_size, run_date, seed)

    def similar(self, size: int) -> DataFrame:
        """Return ``id`` and ``value``: for each item up to `size` others, most similar first.

        By EASE's positive weights: what a like of the item does for the score of the other. By the
        cosine of ALS's factors for items that EASE does not know.
        """
        lists: list[DataFrame] = []
        id_type = self.items.schema[ITEM_ID].dataType
        items = self.items.where(sf.col("vector").isNotNull()).select(ITEM_ID, "vector")
        if self.entries is not None and self.entries.num_rows:
            known = _similar(self.entries, size)
            lists.append(self.users.sparkSession.createDataFrame(known))
            items = items.join(lists[0].select(sf.col("id").alias(ITEM_ID)), ITEM_ID, "left_anti")
        if not items.isEmpty():
            lists.append(self._nearest(items, size))
        if not lists:
            schema = StructType(
                [StructField("id", id_type), StructField("value", ArrayType(id_type))]
            )
            lists.append(self.users.sparkSession.createDataFrame([], schema))
        return reduce(DataFrame.unionByName, lists)

    def _nearest(self, items: DataFrame, size: int) -> DataFrame:
        """Return the lists of `items` (item_id, vector) by cosine among all with a vector."""
        factors = self.items.where(sf.col("vector").isNotNull())
        numbers = number_ids(factors, ITEM_ID, ITEM)
        candidates = Candidates.collect(factors.join(numbers, ITEM_ID), ITEM_ID)
        lengths = np.linalg.norm(candidates.vectors, axis=1, keepdims=True)
        units = (candidates.vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        rows = items.join(numbers, ITEM_ID).select(
            sf.col(ITEM_ID).alias("id"), "vector", sf.array(ITEM).alias("seen")
        )
        return top_unseen(rows, replace(candidates, vectors=units), size).select("id", "value")


def _similar(entries: pa.Table, size: int) -> pa.Table:
    """Return ``id`` and ``value``: the `size` others with the largest positive weights."""
    lengths = pc.list_value_length(entries["others"]).to_numpy()
    weights = pc.list_flatten(entries["weights"]).to_numpy()
    others = pc.list_flatten(entries["others"]).combine_chunks()
    rows = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((np.arange(len(rows)), -weights, rows))
    order = order[weights[order] > 0]
    counts = np.bincount(rows[order], minlength=len(lengths))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    order = order[place < size]
    ends = np.cumsum(np.minimum(counts, size))
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    value = pa.ListArray.from_arrays(offsets, others.take(pa.array(order)))
    table = pa.table({"id": entries[ITEM_ID].combine_chunks(), "value": value})
    return table.filter(pa.array(counts > 0))


def _histories(likes: DataFrame, catalogue: DataFrame) -> DataFrame:
    """Return ``id`` and ``history``: item ids, the latest like first, ties by the larger id."""
    moments = sf.sort_array(sf.collect_list(sf.struct(LIKED_AT, ITEM_ID)), asc=False)
    return (
        likes.join(catalogue, ITEM)
        .groupBy(sf.col(USER_ID).alias("id"))
        .agg(moments.alias("moments"))
        .select("id", sf.col(f"moments.{ITEM_ID}").alias("history"))
    )


def _matrix(entries: pa.Table, ids: pa.Array, liked: NDArray[np.int64]) -> csr_matrix:
    """Return EASE's weights [k, k] between the items `ids[liked]`; others are left out."""
    value_set = ids.take(pa.array(liked))

    def numbers(names: pa.ChunkedArray) -> NDArray[np.int32]:
        found = pc.index_in(names, value_set=value_set).fill_null(-1)
        return np.asarray(found.to_numpy(), np.int32)

    lengths = pc.list_value_length(entries["others"]).to_numpy()
    rows = np.repeat(numbers(entries[ITEM_ID]), lengths)
    columns = numbers(pc.list_flatten(entries["others"]))
    values = pc.list_flatten(entries["weights"]).to_numpy()
    known = (rows >= 0) & (columns >= 0)
    shape = (len(liked), len(liked))
    return csr_matrix((values[known], (rows[known], columns[known])), shape, np.float32)
