"""The rankers' feature tables: one JSON array per id, which the online side reads back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.features.schema import ITEM_FEATURES, USER_FEATURES, USER_HISTORY
from pipelines.models.feature_tables import feature_tables
from pipelines.online.store import parse_feature_row
from tests.models.world import KINDS, USERS, World

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize("name", ["world", "string_world"])
def test_values_come_back_as_they_were(
    spark: SparkSession, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    world: World = request.getfixturevalue(name)
    inputs = world.inputs(tmp_path)
    users, items, histories = feature_tables(spark, inputs)
    for table, path, key, names, count in (
        (users, inputs.paths.user_features, "user_id", USER_FEATURES, USERS),
        (items, inputs.paths.item_features, "item_id", ITEM_FEATURES, len(KINDS)),
    ):
        assert (table.name, table.kind) == (Path(path).name, "text")
        texts = {row["id"]: row["value"] for row in table.frame.collect()}
        features = spark.read.parquet(path).drop(USER_HISTORY)
        rows = [row.asDict() for row in features.collect()]
        assert len(texts) == len(rows) == count
        for row in rows:
            text = texts[row.pop(key)]
            assert parse_feature_row(text, names) == row
            assert text == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    assert (histories.name, histories.kind) == ("user_history", "ids")
    kept = {row["id"]: row["value"] for row in histories.frame.collect()}
    known = spark.read.parquet(inputs.paths.user_features).collect()
    assert kept == {row["user_id"]: row["user_history"] for row in known}
    assert [row["user_rated_1"] for row in known] == [kept[row["user_id"]][0] for row in known]


def test_texts_are_quoted_as_json_wants(spark: SparkSession, tmp_path: Path) -> None:
    from pipelines.models.feature_tables import _as_json

    odd = '[a], "b" \\ é\n]'
    frame = spark.createDataFrame([(1, odd, None, 0.1)], "k int, a string, b string, c double")
    (row,) = _as_json(frame, "k", ["a", "b", "c"]).collect()
    assert json.loads(row["value"]) == [odd, None, 0.1]
