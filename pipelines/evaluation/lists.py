"""What the lists of a version are like, measured where they lie: by Spark, on the executors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from pipelines.evaluation.list_gates import ListMeasures

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: The items that count as the top: this share of the catalogue, at least one.
TOP = 0.01
_COMPARED_LENGTH = 10


def measure_lists(lists: DataFrame, catalogue_size: int) -> ListMeasures:
    """Return coverage and concentration of `lists`, with ``value`` (array of item ids).

    Concentration is the share of all places that the most listed 1% of the catalogue takes (the
    short head of the exposure). Unlike the Gini index it does not approach 1 just because a large
    catalogue has many items in no list.
    """
    counts = lists.select(sf.explode("value").alias("item")).groupBy("item").count().cache()
    top = counts.orderBy(sf.desc("count")).limit(math.ceil(TOP * catalogue_size))
    items, places = counts.agg(sf.count("*"), sf.sum("count")).first() or (0, 0)
    taken = (top.agg(sf.sum("count")).first() or (0,))[0]
    counts.unpersist()
    return ListMeasures(
        coverage=items / catalogue_size, top_share=taken / places if places else math.nan
    )


def mean_overlap(lists: DataFrame, live: DataFrame) -> float | None:
    """Return the mean Jaccard index of the first ten items, over the ids that both have.

    Both have ``id`` and ``value`` (array of item ids, best first). None if they share no id.
    """

    def first_items(frame: DataFrame, name: str) -> DataFrame:
        items = sf.slice("value", 1, _COMPARED_LENGTH).cast("array<string>")
        return frame.select(sf.col("id").cast("string").alias("id"), items.alias(name))

    both = first_items(lists, "new").join(first_items(live, "live"), "id")
    union = sf.size(sf.array_union("new", "live"))
    common = sf.size(sf.array_intersect("new", "live"))
    row = both.agg(sf.avg(sf.when(union > 0, common / union).otherwise(1.0))).first()
    return None if row is None or row[0] is None else float(row[0])
