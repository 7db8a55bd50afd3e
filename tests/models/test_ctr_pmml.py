"""`ctr_pmml`: it learns, and the PMML answers as Spark does, whatever is missing or unseen."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pytest
from pyspark.sql import functions as sf
from pyspark.sql.types import StructField, StructType

from pipelines.errors import DataError
from pipelines.features.schema import FEATURES, GENRES, LABEL, NUMBERS
from pipelines.models import registry
from pipelines.models.base import Built
from pipelines.models.ctr_pmml import INPUTS, fit, score
from pipelines.models.pmml_export import export_pmml
from pipelines.online.pmml import PmmlScorer
from pipelines.online.ranking_inputs import pmml_rows
from tests.models.world import World, rewrite

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql import DataFrame, SparkSession


@pytest.fixture(scope="module")
def built(
    spark: SparkSession, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Built]:
    yield registry.build("ctr_pmml", spark, world.inputs(tmp_path_factory.mktemp("ctr")))


def test_it_beats_the_constant(built: Built) -> None:
    area, loss = built.metrics["auc"], built.metrics["log_loss"]
    assert area.value > 0.8
    assert loss.value < loss.baselines["constant"]
    assert set(area.baselines) == {"constant", "user_item_mean"}


def test_golden_requests_are_answered_by_the_file(built: Built, world: World) -> None:
    assert len(built.golden) == world.config.release.golden_size
    nothing, unseen = built.golden[:2]
    assert set(nothing.inputs.values()) == {None}
    assert {unseen.inputs[name] for name in GENRES} == {"(unseen)"}
    with PmmlScorer(built.files["model.pmml"]) as scorer:
        scores = scorer.score(pmml_rows([request.inputs for request in built.golden]))
    assert scores == pytest.approx([request.score for request in built.golden], abs=1e-9)
    assert len(set(scores)) > 10


def read_samples(spark: SparkSession, world: World) -> DataFrame:
    numbers = [sf.col(name).cast("double").alias(name) for name in NUMBERS]
    samples = spark.read.parquet(world.inputs(world.root).paths.samples)
    return samples.select(LABEL, *numbers, *GENRES)


def spark_scores(
    spark: SparkSession, model: PipelineModel, samples: DataFrame, rows: list[dict[str, Any]]
) -> list[float]:
    schema = StructType([StructField(n, samples.schema[n].dataType) for n in INPUTS])
    frame = spark.createDataFrame([tuple(row[name] for name in INPUTS) for row in rows], schema)
    return [row["score"] for row in score(model, frame).select("score").collect()]


def test_the_file_agrees_with_spark_on_any_row(
    spark: SparkSession, world: World, tmp_path: Path
) -> None:
    samples = read_samples(spark, world)
    model = fit(samples, world.config.models.ctr_pmml)
    export_pmml(model, samples.schema, tmp_path / "model.pmml")
    drawn = random.Random(1)
    known = [row.asDict() for row in samples.limit(200).collect()]
    rows = []
    for _ in range(300):
        row = dict(drawn.choice(known))
        for name in drawn.sample(INPUTS, drawn.randint(0, len(INPUTS))):
            other = ["Nope", "", "__unknown"] if name in GENRES else [-1e6, 0.0, 0.5, 1e6]
            row[name] = drawn.choice([None, *other])
        rows.append(row)
    with PmmlScorer(tmp_path / "model.pmml") as scorer:
        assert scorer.score(rows) == pytest.approx(
            spark_scores(spark, model, samples, rows), abs=1e-9
        )


def test_features_without_any_value_are_left_out(
    spark: SparkSession, world: World, tmp_path: Path
) -> None:
    nothing = {
        "release_year": sf.lit(None).cast("double"),
        "item_genre_3": sf.lit(None).cast("string"),
    }
    samples = read_samples(spark, world).withColumns(
        {**nothing, "user_rating_stddev": sf.lit(3.0), "user_genre_5": sf.lit("the only one")}
    )
    model = fit(samples, world.config.models.ctr_pmml)
    export_pmml(model, samples.schema, tmp_path / "model.pmml")
    rows = [row.asDict() for row in samples.limit(50).collect()]
    with PmmlScorer(tmp_path / "model.pmml") as scorer:
        assert scorer.score(rows) == pytest.approx(
            spark_scores(spark, model, samples, rows), abs=1e-9
        )
    empty = samples.select(LABEL, *[sf.lit(None).cast("double").alias(n) for n in INPUTS])
    with pytest.raises(DataError, match="no feature has a value"):
        fit(empty, world.config.models.ctr_pmml)


def test_the_same_run_twice_gives_the_same(
    spark: SparkSession, world: World, built: Built, tmp_path: Path
) -> None:
    again = registry.build("ctr_pmml", spark, world.inputs(tmp_path))
    assert again.metrics == built.metrics
    assert again.golden == built.golden


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(0, 0), "no training samples"),
        (lambda t: t.filter(pc.invert(t["is_holdout"])), "holdout is empty"),
        (lambda t: t.filter(pc.equal(t["label"], 1.0)), "training labels are 1"),
    ],
)
@pytest.mark.parametrize("unit", ["ctr_pmml", "embedding_mlp"])
def test_data_that_nothing_can_be_learnt_from_is_refused_in_one_line(
    spark: SparkSession,
    new_world: Callable[..., World],
    tmp_path: Path,
    change: Callable[[Any], Any],
    message: str,
    unit: Any,
) -> None:
    world = new_world()
    rewrite(world, "samples", change)
    with pytest.raises(DataError, match=message) as error:
        registry.build(unit, spark, world.inputs(tmp_path))
    assert "\n" not in str(error.value)


def test_only_the_features_are_inputs() -> None:
    assert set(INPUTS) < set(FEATURES)
