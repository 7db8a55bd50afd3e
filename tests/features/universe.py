"""Many small worlds in one lake, so that one run of the feature job tests all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from pipelines.config import PipelineConfig
from pipelines.data.contract import event_schema, item_schema
from pipelines.lake import Lake
from tests.features.naive import HISTORY, Catalogue, Event, Item

RUN_DATE = date(2024, 3, 5)
#: Time moves in steps of a quarter of a day, from four days before the end of the run date to one
#: day after it: many events share their moment.
STEP = 21_600
START = int(datetime(2024, 3, 2, tzinfo=UTC).timestamp())
END = int(datetime(2024, 3, 6, tzinfo=UTC).timestamp())
USERS, ITEMS = range(1, 4), range(1, 6)

EVENTS = st.builds(
    Event,
    user=st.sampled_from(USERS),
    item=st.sampled_from(ITEMS),
    rating=st.integers(1, 10).map(lambda half: half / 2),
    at=st.integers(0, 19).map(lambda step: START + step * STEP),
)
CATALOGUES = st.dictionaries(
    st.sampled_from(ITEMS),
    st.builds(
        Item,
        genres=st.lists(st.sampled_from("ABCDEFG"), unique=True, max_size=4).map(tuple),
        release_year=st.one_of(st.none(), st.integers(1990, 2000)),
    ),
    min_size=1,
)


def moved(events: Iterable[Event], number: int) -> list[Event]:
    """The events in a world of their own, with ids that no other has."""
    return [replace(e, user=number * 100 + e.user, item=number * 100 + e.item) for e in events]


def moved_items(items: Catalogue, number: int) -> Catalogue:
    """The catalogue in the same world."""
    return {number * 100 + item: content for item, content in items.items()}


def configuration(**changes: Any) -> PipelineConfig:
    """A configuration with changes to its sections `data`, `evaluation` and `features`."""
    data = {"events": {"path": "e"}, "items": {"path": "i"}} | changes.get("data", {})
    return PipelineConfig.model_validate(
        {
            "data": data,
            "evaluation": changes.get("evaluation", {}),
            "features": {"history_length": HISTORY} | changes.get("features", {}),
        }
    )


def write_lake(
    spark: SparkSession, lake: Lake, config: PipelineConfig, events: list[Event], items: Catalogue
) -> None:
    """Put events and catalogue where ingest would."""
    id_type = event_schema(config.data)["item_id"].dataType.simpleString()
    rows = [(e.user, e.item, e.rating, e.at) for e in set(events)]
    frame = spark.createDataFrame(
        rows, f"user_id {id_type}, item_id {id_type}, rating double, at long"
    )
    timed = frame.withColumn("timestamp", sf.timestamp_seconds("at")).drop("at")
    timed.withColumn("dt", sf.to_date("timestamp")).repartition(1).write.partitionBy("dt").mode(
        "overwrite"
    ).parquet(lake.ratings)
    write_items(spark, lake, config, items)


def write_items(spark: SparkSession, lake: Lake, config: PipelineConfig, items: Catalogue) -> None:
    """Put the catalogue where ingest would."""
    catalogue = [(i, f"Title {i}", list(c.genres), c.release_year) for i, c in items.items()]
    spark.createDataFrame(catalogue, item_schema(config.data)).coalesce(1).write.mode(
        "overwrite"
    ).parquet(lake.items)
