"""Versions of the unit `recs` whose tables come from Spark, as a build's do."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.models.base import Built, Metric, Table
from pipelines.release.activate import activate
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.publish import publish
from pipelines.release.runners import SparkRunner
from pipelines.release.stage_tables import stage_tables
from pipelines.release.tables import PreparedTables, prepare_tables
from pipelines.run import RunPlan, make_version

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

USERS = 300
DAY = date(2026, 3, 1)


def lists(spark: SparkSession, version: int) -> list[Table]:
    users = [(user, [version * 1000 + user, user, 1]) for user in range(USERS)]
    titles = [(item, f'Title, "{item}" é') for item in range(USERS)]
    return [
        Table("user_items", "ids", spark.createDataFrame(users, "id bigint, value array<bigint>")),
        Table(
            "popular",
            "ids",
            spark.createDataFrame([("all", [3, 1])], "id string, value array<bigint>"),
        ),
        Table("titles", "text", spark.createDataFrame(titles, "id bigint, value string")),
    ]


def prepare(spark: SparkSession, tables: list[Table], folder: Path) -> PreparedTables:
    folder.mkdir(parents=True)
    return prepare_tables(tables, folder, item_id_type="int64", bucket_size=32, golden_size=16)


def build(
    spark: SparkSession,
    context: ReleaseContext,
    folder: Path,
    attempt: int,
    tables: list[Table] | None = None,
) -> Manifest:
    version = make_version(DAY, attempt)
    plan = RunPlan(
        run_date=DAY, version=version, run_type="manual", run_id=f"run {attempt}", units=("recs",)
    )
    workdir = folder / str(version)
    prepared = prepare(spark, tables or lists(spark, attempt), workdir / "tables")
    built = Built(
        metrics={"ndcg_at_10": Metric(value=0.1, baselines={"popularity": 0.05})}, params={}
    )
    return publish(context.registry, plan, "recs", built, [prepared], {"rows": 1}, workdir)


def release(
    spark: SparkSession,
    context: ReleaseContext,
    folder: Path,
    attempt: int,
    tables: list[Table] | None = None,
) -> Manifest:
    manifest = build(spark, context, folder, attempt, tables)
    stage_tables(context, manifest, SparkRunner(spark))
    assert activate(context, manifest).outcome == "live"
    return manifest
