"""What a client answers from the tables of what is live."""

from __future__ import annotations

from pathlib import Path

from pyspark.sql import SparkSession

from pipelines.models.base import Table
from pipelines.online.client import FerryClient
from pipelines.release.context import ReleaseContext
from tests.release.spark_tables import lists, release


def test_popular_items_of_a_genre_and_what_the_same_users_like(
    spark: SparkSession, tables_only: ReleaseContext, tmp_path: Path
) -> None:
    users, _, titles = lists(spark, 1)
    popular = spark.createDataFrame(
        [("all", [3, 1]), ("genre:Drama", [5])], "id string, value array<bigint>"
    )
    similar = spark.createDataFrame([(7, [8, 9, 10])], "id bigint, value array<bigint>")
    tables = [
        users,
        Table("popular", "ids", popular),
        Table("similar_items", "ids", similar),
        titles,
    ]
    release(spark, tables_only, tmp_path, 1, tables)
    with FerryClient(tables_only.settings) as client:

        def cold(genre: str) -> tuple[list[str], str]:
            answer = client.recommend("nobody", genre=genre)
            return [item.item_id for item in answer.items], answer.note or ""

        assert cold("Drama")[0] == ["5"]
        assert cold("Drama")[1].endswith("the most popular items of the genre Drama")
        assert cold("Opera")[0] == ["3", "1"]
        assert cold("Opera")[1].endswith("(there is no list of the genre Opera)")
        alike = client.similar("7", count=2, source="recs")
        assert [(i.item_id, i.title) for i in alike.items] == [
            ("8", 'Title, "8" é'),
            ("9", 'Title, "9" é'),
        ]
        unknown = client.similar("no such item", source="recs")
        assert (unknown.items, unknown.note) == (
            [],
            "item no such item is unknown, or nobody liked it yet",
        )
