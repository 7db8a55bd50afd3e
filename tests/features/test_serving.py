"""What a model is asked with is what it would have been trained on at the same moment."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.dataset as ds

from pipelines.features.samples import build_features
from pipelines.features.schema import FEATURES, ITEM_FEATURES, ITEM_ID, USER_FEATURES, USER_ID
from pipelines.lake import Lake
from pipelines.models.base import BuildInputs
from pipelines.models.feature_tables import feature_tables
from pipelines.models.rankers.samples import raw_columns
from pipelines.online.ranking_inputs import candidate_rows, serving_inputs
from pipelines.online.store import parse_feature_row
from tests.features.naive import Catalogue, Event, Item
from tests.features.universe import END, RUN_DATE, START, configuration, write_lake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

USERS, ITEMS = range(1, 9), range(100, 140)


def world() -> tuple[list[Event], Catalogue]:
    """Some days of ratings; of users and items some have none before the end of the run date."""
    drawn = random.Random(5)
    genres = ["A", "B", "C", "D"]
    items = {
        i: Item(tuple(drawn.sample(genres, i % 4)), None if i % 7 == 0 else 1990 + i % 30)
        for i in ITEMS
        if i % 9
    }
    events = {
        Event(user, drawn.choice(ITEMS[:-5]), drawn.randint(1, 10) / 2, drawn.randrange(START, END))
        for user in USERS[:-1]
        for _ in range(4 * user)
    }
    return sorted(events, key=lambda e: (e.user, e.at, e.item, e.rating)), items


def test_requests_equal_samples_of_the_same_moment(spark: SparkSession, tmp_path: Path) -> None:
    earlier, items = world()
    # The first moment after the run date: it sees all that the run date's features were made of.
    now = [Event(u, i, 4.0, END) for u in USERS for i in (ITEMS[u], ITEMS[u + 20], ITEMS[-1])]
    config, lake = configuration(), Lake(str(tmp_path))
    write_lake(spark, lake, config, [*earlier, *now], items)
    today, tomorrow = lake.run(1), lake.run(2)
    build_features(spark, config, lake, today, RUN_DATE)
    build_features(spark, config, lake, tomorrow, RUN_DATE + timedelta(days=1))

    tables = feature_tables(spark, BuildInputs(RUN_DATE, today, config, tmp_path))
    online = {t.name: {r["id"]: r["value"] for r in t.frame.collect()} for t in tables}
    is_now = ds.field("timestamp") == np.datetime64(END, "s")
    names = (USER_ID, ITEM_ID, *FEATURES, "user_history")
    samples = ds.dataset(tomorrow.samples, format="parquet").to_table(list(names), filter=is_now)
    assert len(samples) == len(now)
    trained = raw_columns(samples, names)

    def known(table: str, entity: int, features: tuple[str, ...]) -> dict[str, Any] | None:
        text = online[table].get(entity)
        return parse_feature_row(text, features) if text else None

    rows = []
    for user, item in zip(samples[USER_ID].to_pylist(), samples[ITEM_ID].to_pylist(), strict=True):
        of_user = known("user_features", user, USER_FEATURES)
        of_item = {str(item): known("item_features", item, ITEM_FEATURES)}
        (row,) = candidate_rows(str(user), of_user, of_item)
        rows.append({**row, "user_history": online["user_history"].get(user, [])})
    assert sum(row["user_rating_count"] == 0 for row in rows) == 3
    requests = serving_inputs(rows)
    assert set(requests) == set(names)
    for name, column in requests.items():
        np.testing.assert_array_equal(
            np.array(column, trained[name].dtype), trained[name], err_msg=name
        )
