"""Features of the days that are new; those of all other days are kept from an earlier run.

Statistics and lists are folds over the events of an item or a user (:mod:`.history`), so the state
at the end of a day and the events after it give what all events give, to the last bit. A run
goes on from the latest state that may be used (:mod:`.kept`), or from none, computes the samples
of the days since, and keeps the state at its own end. Days that arrive late or change make the
states from then on useless; one before them, if it is still kept, saves the days up to it.

What a run hands over (:mod:`.hand_over`) is the same either way.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from pipelines.config import PipelineConfig
from pipelines.data.contract import DAY, DataSummary, event_schema, item_schema
from pipelines.data.days import read_days
from pipelines.data.values import day_of
from pipelines.features.hand_over import HandOver
from pipelines.features.history import AT, GENRE_COUNTS, ITEM_GENRE_LIST, RECENT_ITEMS
from pipelines.features.kept import (
    KeptState,
    LakeNow,
    keep,
    kept_files,
    load_states,
    new_part,
    newest,
    tidy,
)
from pipelines.features.moments import (
    EVENT,
    FIRST,
    ITEM,
    ITEM_COUNTS,
    ITEM_SUMS,
    LAST,
    MARKED_EVENT,
    MOMENT,
    POSITIVES,
    SAMPLE,
    START,
    USER,
    USER_SUMS,
    carried,
    event_moments,
    of_items,
    of_users,
    queries,
    starts,
)
from pipelines.features.schema import (
    IS_HOLDOUT,
    IS_VALIDATION,
    ITEM_ID,
    LABEL,
    SAMPLE_COLUMNS,
    TIMESTAMP,
    USER_FEATURES,
    USER_HISTORY,
    USER_ID,
)
from pipelines.lake import Lake, RunPaths
from pipelines.progress import Advance

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Incremental:
    """One run's features, from the lake as it is now; it has a day up to the run date."""

    spark: SparkSession
    config: PipelineConfig
    lake: Lake
    paths: RunPaths
    run_date: date
    now: LakeNow
    work: str

    def build(self, catalogue: str, advance: Advance) -> DataSummary:
        """Write what :func:`pipelines.features.samples.build_features` says, but the summary."""
        self._items(catalogue).write.mode("overwrite").parquet(self.paths.items)
        state = self._usable()
        days = self.now.since(state, self.run_date)
        if days or state is None:
            state = self._compute(state, days)
        advance(2, f"{len(days):,} days computed")
        over = HandOver(self.spark, self.config, self.lake, self.paths, self.run_date)
        summary = over.write(state)
        advance(1, f"{summary.rows:,} events of {summary.users:,} users")
        return summary

    def _usable(self) -> KeptState | None:
        """Return the latest state that may be used; delete what nobody can use any more."""
        files = kept_files(self.lake)
        states = load_states(self.lake, files)
        verdicts = [(state, self.now.why_not(state, files)) for state in states]
        # Each late row makes the states since its day useless: one before it should be there.
        count = self.config.data.late_days + 2
        kept = newest((state for state, why in verdicts if why is None), count)
        tidy(self.lake, kept, files)
        reasons = [why for state, why in verdicts if why and state.through <= self.run_date]
        for state in sorted(kept, key=lambda state: state.through, reverse=True):
            if state.through > self.run_date:
                continue
            item = self._described_otherwise(state)
            if item is None:
                _say_from(state, reasons)
                return state
            reasons.append(f"the catalogue has changed for item {item}")
        reason = reasons[0] if reasons else f"nothing is kept of days up to {self.run_date}"
        log.info("features: computed anew for all days: %s", reason)
        return None

    def _described_otherwise(self, state: KeptState) -> Any:
        """Return an item whose events entered with other genres, or another year; None: none."""
        before = _described(self._read(state.folder(self.lake, "items")), ITEM_GENRE_LIST)
        now = _described(self._items(self.paths.items), "genres")
        names = ("genres", "release_year")
        both = before.alias("before").join(now.alias("now"), ITEM_ID, "left")
        same = [sf.col(f"before.{name}").eqNullSafe(sf.col(f"now.{name}")) for name in names]
        # An item that is not in the catalogue has what one without genres and year has.
        gone = sf.col("now.genres").isNull() & (sf.size("before.genres") == 0)
        found = both.where(~(same[1] & (same[0] | gone))).select(ITEM_ID).first()
        return found[ITEM_ID] if found else None

    def _compute(self, base: KeptState | None, days: list[date]) -> KeptState:
        """Compute `days`, all that come after `base`, and keep them with the state at their end."""
        part = new_part(self.run_date)
        folder = f"{self.lake.features}/{part}"
        start = self._micros(base.through) if base else 0
        by_item, by_user = f"{self.work}/by_item", f"{self.work}/by_user"
        is_new = (sf.col(DAY) >= sf.lit(days[0])) & (sf.col(DAY) <= sf.lit(self.run_date))
        events = read_days(self.spark, self.lake.ratings, event_schema(self.config.data))
        new = event_moments(events.where(is_new).select(*EVENT), self.config, sf.lit(SAMPLE))
        rated = self._written(self._item_moments(new, base, start), by_item)
        items = rated.where(sf.col(MOMENT) == ITEM)
        items.select(
            ITEM_ID, *ITEM_COUNTS, *ITEM_SUMS, "release_year", ITEM_GENRE_LIST
        ).write.parquet(f"{folder}/items")
        of_events = rated.where(sf.col(MOMENT) == SAMPLE).drop(*ITEM_SUMS)
        known = self._written(self._user_moments(of_events, base, start), by_user)
        users = carried(known.where(sf.col(MOMENT) == USER))
        users.select(
            *(USER_ID, *USER_FEATURES, USER_HISTORY, FIRST, LAST, POSITIVES),
            *(*USER_SUMS, RECENT_ITEMS, GENRE_COUNTS),
        ).write.parquet(f"{folder}/users")
        not_held_out = sf.lit(False)
        samples = known.where(sf.col(MOMENT) == SAMPLE).withColumns(
            {IS_HOLDOUT: not_held_out, IS_VALIDATION: not_held_out}
        )
        blocks = self._write_blocks(samples, days, folder)
        return keep(self.lake, self.now, self.run_date, part, blocks, base)

    def _item_moments(self, new: DataFrame, base: KeptState | None, start: int) -> DataFrame:
        ids, moments = new.select(ITEM_ID), new
        if base:
            before = self._read(base.folder(self.lake, "items")).select(ITEM_ID, *ITEM_SUMS)
            ids = ids.union(before.select(ITEM_ID))
            moments = _union(moments, starts(before, start))
        moments = _union(moments, queries(ids.distinct(), ITEM, self._micros(self.run_date)))
        rated = of_items(moments, self._items(self.paths.items))
        is_query = sf.col(MOMENT) == ITEM
        return rated.where(sf.col(MOMENT) != START).withColumns(
            {name: sf.when(is_query, sf.col(name)) for name in ITEM_SUMS}
        )

    def _user_moments(self, new: DataFrame, base: KeptState | None, start: int) -> DataFrame:
        positive = sf.col(LABEL).cast("bigint")
        seen = new.select(
            USER_ID,
            *(sf.col(AT).alias(name) for name in (FIRST, LAST)),
            positive.alias(POSITIVES),
        )
        moments = new
        if base:
            before = self._read(base.folder(self.lake, "users"))
            seen = seen.union(before.select(USER_ID, FIRST, LAST, POSITIVES))
            kept = before.select(USER_ID, *USER_SUMS, RECENT_ITEMS, GENRE_COUNTS)
            moments = _union(moments, starts(kept, start))
        users = seen.groupBy(USER_ID).agg(
            sf.min(FIRST).alias(FIRST),
            sf.max(LAST).alias(LAST),
            sf.sum(POSITIVES).alias(POSITIVES),
        )
        moments = _union(moments, queries(users, USER, self._micros(self.run_date)))
        listed = of_users(moments, self.config, resumable=True)
        return listed.where(sf.col(MOMENT) != START)

    def _write_blocks(self, samples: DataFrame, days: list[date], folder: str) -> dict[str, date]:
        """Write samples and events of `days`; returns the last day of each block."""
        old = self.run_date - timedelta(days=2 * self.config.evaluation.holdout_days)
        ends = sf.timestamp_micros(sf.lit(self._micros(old)).cast("bigint"))
        is_old = sf.col(TIMESTAMP) < ends
        day = day_of(sf.col(TIMESTAMP), self.config.data.time_zone)
        blocks = {f"day={d}": d for d in days if d > old}
        for kind, columns in (("samples", SAMPLE_COLUMNS), ("events", MARKED_EVENT)):
            if days[0] <= old:
                rows = samples.where(is_old).select(*columns)
                rows.write.parquet(f"{folder}/{kind}/old")
            if blocks:
                rows = samples.where(~is_old).select(*columns, day.alias("day"))
                rows.write.partitionBy("day").mode("append").parquet(f"{folder}/{kind}")
        return {"old": max(d for d in days if d <= old), **blocks} if days[0] <= old else blocks

    def _read(self, *folders: str) -> DataFrame:
        return self.spark.read.parquet(*folders)

    def _items(self, folder: str) -> DataFrame:
        return self.spark.read.schema(item_schema(self.config.data)).parquet(folder)

    def _written(self, frame: DataFrame, folder: str) -> DataFrame:
        """Write a frame, and return it as it was written."""
        frame.write.mode("overwrite").parquet(folder)
        return self.spark.read.schema(frame.schema).parquet(folder)

    def _micros(self, day: date) -> int:
        """Return the end of a day."""
        return int(self.config.data.calendar.end_of(day).timestamp()) * 1_000_000


def _described(items: DataFrame, genres: str) -> DataFrame:
    listed = sf.coalesce(genres, sf.array().cast("array<string>"))
    return items.select(ITEM_ID, listed.alias("genres"), "release_year")


def _union(moments: DataFrame, others: DataFrame) -> DataFrame:
    return moments.unionByName(others, allowMissingColumns=True)


def _say_from(state: KeptState, reasons: list[str]) -> None:
    if reasons:
        log.info("features: computed anew after %s: %s", state.through, reasons[0])
    else:
        log.info("features: those up to %s are kept from an earlier run", state.through)
