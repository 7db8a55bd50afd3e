"""Moments of events, items and users, with the features that each has: frames in, frames out."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from pipelines.config import PipelineConfig
from pipelines.features.history import (
    AT,
    IS_POSITIVE,
    ITEM_GENRE_LIST,
    SUMS,
    in_order,
    list_columns,
    sums_of,
    with_recent_lists,
    with_statistics,
)
from pipelines.features.schema import (
    IS_HOLDOUT,
    IS_VALIDATION,
    ITEM_GENRES,
    ITEM_ID,
    LABEL,
    RATING,
    TIMESTAMP,
    USER_ID,
)

EVENT = (USER_ID, ITEM_ID, RATING, TIMESTAMP)
#: What a moment is for.
MOMENT = "moment"
SAMPLE, ASIDE, ITEM, USER, START = "sample", "aside", "item", "user", "start"
#: An event as a run hands it over.
MARKED_EVENT = (*EVENT, IS_HOLDOUT, IS_VALIDATION)
#: A user's first and last event (microseconds), and number of positives.
FIRST, LAST, POSITIVES = "first_at", "last_at", "positives"
#: Of an item's features those that its events decide.
ITEM_COUNTS = ("item_rating_count", "item_rating_mean", "item_rating_stddev")
#: What statistics go on from, by the table that they are kept in.
ITEM_SUMS = (sums_of("item_rating"),)
USER_SUMS = (sums_of("user_rating"), sums_of("user_release_year"))
#: What queries for users carry through Python, as one list of doubles (:func:`carried`).
CARRIED = "carried"
_CARRIED = {
    **{f"{sums}.{name}": kind for sums in USER_SUMS for name, kind in SUMS.items()},
    **dict.fromkeys((FIRST, LAST, POSITIVES), "bigint"),
}


def label(config: PipelineConfig) -> Column:
    """Return 1.0 for a positive rating, else 0.0."""
    return (sf.col(RATING) >= config.data.positive_rating).cast("double")


def event_moments(events: DataFrame, config: PipelineConfig, kind: Column) -> DataFrame:
    """Return events as moments of a `kind`, with ``label``."""
    at = sf.unix_micros(TIMESTAMP).alias(AT)
    return events.select("*", label(config).alias(LABEL), at, kind.alias(MOMENT))


def queries(ids: DataFrame, kind: str, at: int) -> DataFrame:
    """Return moments that ask for the features of each of `ids` as of `at`."""
    return ids.withColumns({AT: sf.lit(at).cast("bigint"), MOMENT: sf.lit(kind)})


def starts(kept: DataFrame, at: int) -> DataFrame:
    """Return moments that stand for all events before `at`: what queries had to go on from."""
    return queries(kept, START, at - 1)


def item_attributes(catalogue: DataFrame) -> DataFrame:
    """Return what is known of each item, whatever its events."""
    genres = sf.col("genres")
    return catalogue.select(
        ITEM_ID,
        "release_year",
        *(sf.get(genres, i).alias(name) for i, name in enumerate(ITEM_GENRES)),
        genres.alias(ITEM_GENRE_LIST),
    )


def of_items(moments: DataFrame, catalogue: DataFrame) -> DataFrame:
    """Return the moments of events and items, each with its item's features at that time."""
    ordered = in_order(moments, ITEM_ID, USER_ID, RATING)
    rated = with_statistics(ordered, ITEM_ID, {RATING: "item_rating"})
    return rated.join(item_attributes(catalogue), ITEM_ID, "left")


def of_users(moments: DataFrame, config: PipelineConfig, *, resumable: bool) -> DataFrame:
    """Return the moments of events and users, each with its user's features at that time.

    If `resumable`, queries also have what a later fold goes on from: lists, and :func:`carried`.
    """
    moments = moments.withColumn(IS_POSITIVE, sf.col(LABEL) == 1.0)
    if resumable:
        columns = list_columns(moments.schema[ITEM_ID].dataType)
        absent = {name: kind for name, kind in columns.items() if name not in moments.columns}
        moments = moments.withColumns({n: sf.lit(None).cast(k) for n, k in absent.items()})
    rated = with_statistics(
        in_order(moments, USER_ID, ITEM_ID, RATING),
        USER_ID,
        {RATING: "user_rating", "release_year": "user_release_year"},
    )
    if resumable:
        # One column, which is null for events: a null for each of these would still be sent to
        # Python and back for each event, and more than double what this pass takes.
        values = sf.array(*(sf.col(name).cast("double") for name in _CARRIED))
        rated = rated.withColumn(CARRIED, sf.when(sf.col(MOMENT) == USER, values))
        rated = rated.drop(FIRST, LAST, POSITIVES)
    rated = rated.drop(*USER_SUMS)
    return with_recent_lists(rated, config.features.history_length)


def carried(users: DataFrame) -> DataFrame:
    """Give resumable queries the columns that went through Python as one; all are exact."""
    values = {
        name: sf.col(CARRIED)[place].cast(kind)
        for place, (name, kind) in enumerate(_CARRIED.items())
    }
    sums = {
        column: sf.struct(*(values[f"{column}.{name}"].alias(name) for name in SUMS))
        for column in USER_SUMS
    }
    return users.withColumns({**sums, **{name: values[name] for name in (FIRST, LAST, POSITIVES)}})
