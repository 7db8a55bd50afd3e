"""What a run hands over, from what is kept of the features up to its date.

The files of the days that are trained on, in this run and in all later ones, are linked. The days
before the run date whose marks move with every run are marked and written anew; where the holdout
is a fraction of each user's events, all days are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import PipelineConfig
from pipelines.data.contract import DataSummary, item_schema
from pipelines.evaluation.holdout import (
    Holdout,
    choose_holdout,
    last_unmarked_day,
    mark_by,
    mark_validation,
)
from pipelines.features.history import ITEM_GENRE_LIST
from pipelines.features.kept import Block, KeptState, give
from pipelines.features.moments import (
    FIRST,
    ITEM_COUNTS,
    LAST,
    MARKED_EVENT,
    POSITIVES,
    item_attributes,
)
from pipelines.features.schema import (
    IS_HOLDOUT,
    ITEM_FEATURES,
    ITEM_ID,
    SAMPLE_COLUMNS,
    USER_FEATURES,
    USER_HISTORY,
    USER_ID,
)
from pipelines.lake import Lake, RunPaths


@dataclass(frozen=True)
class HandOver:
    """The folders of one run; its ``items`` are there already."""

    spark: SparkSession
    config: PipelineConfig
    lake: Lake
    paths: RunPaths
    run_date: date

    def write(self, state: KeptState) -> DataSummary:
        """Write samples, events and features of the run from a state that ends with it."""
        users = self._read(state.folder(self.lake, "users"))
        features = users.select(USER_ID, *USER_FEATURES, USER_HISTORY)
        features.write.mode("overwrite").parquet(self.paths.user_features)
        self._item_features(state).write.mode("overwrite").parquet(self.paths.item_features)
        bounds = users.select(
            sf.timestamp_micros(FIRST).alias("first"), sf.timestamp_micros(LAST).alias("last")
        )
        calendar = self.config.data.calendar
        holdout = choose_holdout(bounds, self.config.evaluation, self.run_date, calendar)
        as_kept = last_unmarked_day(holdout, self.run_date)
        linked = [b for b in state.blocks if as_kept and b.last_day <= as_kept]
        marked = [block for block in state.blocks if block not in linked]
        # Counted before the linked ones join them, none of which is held out.
        counts = _holdout_counts(self._write_marked(marked, users, holdout))
        for kind, target in (("events", self.paths.events), ("samples", self.paths.samples)):
            for place, block in enumerate(linked):
                give(block.folder(self.lake, kind), target, f"kept-{place:05d}")
        return self._summary(users, state, holdout, counts)

    def _item_features(self, state: KeptState) -> DataFrame:
        catalogue = item_attributes(self._items()).drop(ITEM_GENRE_LIST)
        rated = self._read(state.folder(self.lake, "items")).select(ITEM_ID, *ITEM_COUNTS)
        items = catalogue.join(rated, ITEM_ID, "full")
        count = sf.coalesce("item_rating_count", sf.lit(0).cast("bigint"))
        return items.withColumn("item_rating_count", count).select(ITEM_ID, *ITEM_FEATURES)

    def _write_marked(self, blocks: list[Block], users: DataFrame, holdout: Holdout) -> DataFrame:
        """Write samples and events of blocks with their marks; returns the events."""
        rows = self._read(*(block.folder(self.lake, "samples") for block in blocks))
        first = users.select(USER_ID, sf.timestamp_micros(FIRST).alias("first"))
        calendar = self.config.data.calendar
        marked = mark_by(
            rows.join(first, USER_ID), holdout, self.run_date, calendar, sf.col("first")
        )
        marked = mark_validation(marked, holdout, self.run_date, calendar)
        samples = marked.where(sf.col(IS_HOLDOUT).isNotNull()).select(*SAMPLE_COLUMNS)
        samples.write.mode("overwrite").parquet(self.paths.samples)
        events = marked.select(*MARKED_EVENT)
        events.write.mode("overwrite").parquet(self.paths.events)
        return self.spark.read.schema(events.schema).parquet(self.paths.events)

    def _summary(
        self, users: DataFrame, state: KeptState, holdout: Holdout, counts: Mapping[str, int]
    ) -> DataSummary:
        total = users.agg(
            sf.sum("user_rating_count").alias("rows"),
            sf.count("*").alias("users"),
            sf.sum(POSITIVES).alias("positives"),
            sf.min(FIRST).alias("first"),
            sf.max(LAST).alias("last"),
        ).collect()[0]
        first, last = (
            self.config.data.calendar.day_of(datetime.fromtimestamp(at // 1_000_000, UTC))
            for at in (total["first"], total["last"])
        )
        return DataSummary(
            run_date=self.run_date,
            lake_id=state.lake_id,
            rows=total["rows"],
            users=total["users"],
            items=self._read(state.folder(self.lake, "items")).count(),
            catalogue_items=self._items().count(),
            first_day=first,
            last_day=last,
            positives=total["positives"],
            holdout=holdout.kind,
            holdout_days=holdout.days,
            holdout_fraction=holdout.fraction,
            **counts,
        )

    def _items(self) -> DataFrame:
        return self.spark.read.schema(item_schema(self.config.data)).parquet(self.paths.items)

    def _read(self, *folders: str) -> DataFrame:
        return self.spark.read.parquet(*folders)


def _holdout_counts(marked: DataFrame) -> Mapping[str, int]:
    is_holdout = sf.col(IS_HOLDOUT)
    counts = marked.agg(
        sf.count_if(is_holdout).alias("holdout_rows"),
        sf.count_distinct(sf.when(is_holdout, sf.col(USER_ID))).alias("holdout_users"),
        sf.count_if(is_holdout.isNull()).alias("set_aside_rows"),
    )
    return counts.collect()[0].asDict()
