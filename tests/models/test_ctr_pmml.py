"""`ctr_pmml`: it learns, and the PMML answers as Spark does, whatever is missing or unseen."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as sf
from pyspark.sql.types import StructField, StructType

from pipelines.errors import DataError
from pipelines.features.schema import FEATURES, GENRES, IS_HOLDOUT, LABEL, NUMBERS
from pipelines.models import registry
from pipelines.models.base import Built
from pipelines.models.ctr_pmml import compare, fit, score
from pipelines.models.pmml.inputs import INPUTS
from pipelines.models.pmml_export import export_pmml
from pipelines.models.stored import EVALUATION
from pipelines.models_config import PMML_MODELS
from pipelines.online.pmml import PmmlScorer
from pipelines.online.ranking_inputs import pmml_rows
from tests.models.second_scorer import SecondScorer, second_scorer
from tests.models.world import World, assert_calibration, make_world, rewrite

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel
    from pyspark.sql import DataFrame, SparkSession

SETTINGS = {
    "logistic_regression": {"iterations": 10},
    "gradient_boosted_trees": {"trees": 6, "depth": 3, "min_leaf_samples": 5},
}
PARITY = 1e-9
Row = dict[str, Any]


@pytest.fixture(scope="module", params=PMML_MODELS)
def pmml_world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world for each of the models."""
    root = tmp_path_factory.mktemp("world") / "pmml"
    return make_world(root, ctr_pmml={"model": request.param, **SETTINGS})


@pytest.fixture(scope="module")
def built(
    spark: SparkSession, pmml_world: World, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    return registry.build("ctr_pmml", spark, pmml_world.inputs(tmp_path_factory.mktemp("ctr")))


@pytest.fixture(scope="module")
def second() -> Iterator[SecondScorer]:
    with second_scorer() as scorer:
        yield scorer


class Fitted:
    """A model of Spark's and the file that was made of it."""

    def __init__(self, spark: SparkSession, world: World, samples: DataFrame, path: Path) -> None:
        config = world.config.models.ctr_pmml
        self.spark, self.samples, self.path = spark, samples, path
        self.model: PipelineModel = fit(samples, config.model, config, world.config.seed)
        export_pmml(self.model, StructType([samples.schema[n] for n in (LABEL, *INPUTS)]), path)

    def spark_scores(self, rows: list[Row]) -> list[float]:
        fields = [StructField(name, self.samples.schema[name].dataType) for name in INPUTS]
        values = [tuple(row[name] for name in INPUTS) for row in rows]
        frame = self.spark.createDataFrame(values, StructType(fields))
        return [row["score"] for row in score(self.model, frame).select("score").collect()]

    def assert_parity(self, rows: list[Row], scorer: PmmlScorer, second: SecondScorer) -> None:
        wanted = pytest.approx(self.spark_scores(rows), abs=PARITY, rel=0)
        assert scorer.score(rows) == wanted
        assert second.score(self.path, rows) == wanted


def read_samples(spark: SparkSession, world: World) -> DataFrame:
    numbers = [sf.col(name).cast("double").alias(name) for name in NUMBERS]
    samples = spark.read.parquet(world.inputs(world.root).paths.samples)
    return samples.select(LABEL, IS_HOLDOUT, *numbers, *GENRES)


def as_rows(samples: DataFrame) -> list[Row]:
    return [row.asDict() for row in samples.select(*INPUTS).collect()]


@pytest.fixture(scope="module")
def fitted(
    spark: SparkSession, pmml_world: World, tmp_path_factory: pytest.TempPathFactory
) -> Fitted:
    path = tmp_path_factory.mktemp("fitted") / "model.pmml"
    return Fitted(spark, pmml_world, read_samples(spark, pmml_world), path)


@pytest.fixture(scope="module")
def scorer(fitted: Fitted) -> Iterator[PmmlScorer]:
    with PmmlScorer(fitted.path) as scorer:
        yield scorer


def test_it_beats_the_constant(built: Built, pmml_world: World) -> None:
    area, loss = built.metrics["auc"], built.metrics["log_loss"]
    assert area.value > 0.8
    assert loss.value < loss.baselines["constant"]
    assert set(area.baselines) == {"constant", "user_item_mean"}
    assert_calibration(built, pmml_world)


def test_golden_requests_are_answered_by_the_file(built: Built, pmml_world: World) -> None:
    assert len(built.golden) == pmml_world.config.release.golden_size
    nothing, unseen = built.golden[:2]
    assert set(nothing.inputs.values()) == {None}
    assert {unseen.inputs[name] for name in GENRES} == {"(unseen)"}
    with PmmlScorer(built.files["model.pmml"]) as scorer:
        scores = scorer.score(pmml_rows([request.inputs for request in built.golden]))
    assert scores == pytest.approx([request.score for request in built.golden], abs=PARITY)
    assert len(set(scores)) > 5


def test_the_kept_fit_is_judged_as_it_was(
    spark: SparkSession, pmml_world: World, built: Built, tmp_path: Path
) -> None:
    again = registry.evaluate_stored(
        "ctr_pmml", spark, pmml_world.inputs(tmp_path), built.files[EVALUATION]
    )
    assert again == {name: metric.value for name, metric in built.metrics.items()}


def test_the_file_agrees_with_spark_on_the_whole_holdout_and_beyond(
    fitted: Fitted, scorer: PmmlScorer, second: SecondScorer
) -> None:
    known = as_rows(fitted.samples)
    assert len(known) > len(as_rows(fitted.samples.where(IS_HOLDOUT))) > 100
    drawn = random.Random(1)
    rows = list(known)
    for _ in range(300):
        row = dict(drawn.choice(known))
        for name in drawn.sample(INPUTS, drawn.randint(0, len(INPUTS))):
            other = ["Nope", "", "__unknown"] if name in GENRES else [-1e6, 0.0, 0.5, 1e6]
            row[name] = drawn.choice([None, *other])
        rows.append(row)
    fitted.assert_parity(rows, scorer, second)


# Features are counts, means and years. Far beyond them, terms of a linear model that cancel each
# other leave nothing but rounding, and no two programs round alike.
_NUMBER = st.none() | st.floats(-1e6, 1e6) | st.floats(0, 5)
# What XML can't hold, no request holds either.
_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
_GENRE = st.none() | st.sampled_from(["Film", "Taste 0", "Hit", "(no genres)"]) | _TEXT
_ROW = st.fixed_dictionaries({**dict.fromkeys(NUMBERS, _NUMBER), **dict.fromkeys(GENRES, _GENRE)})


@settings(max_examples=8, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
@given(st.lists(_ROW, min_size=20, max_size=40))
def test_the_file_agrees_with_spark_on_any_row(
    fitted: Fitted, scorer: PmmlScorer, second: SecondScorer, rows: list[Row]
) -> None:
    fitted.assert_parity(rows, scorer, second)


def test_numbers_that_overflow_are_refused_by_name(
    fitted: Fitted, scorer: PmmlScorer, pmml_world: World
) -> None:
    row = {**dict.fromkeys(GENRES), **dict.fromkeys(NUMBERS, sys.float_info.max)}
    if pmml_world.config.models.ctr_pmml.model == "logistic_regression":
        with pytest.raises(DataError, match=r"gives no score for .*'item_rating_count'"):
            scorer.score([row])
    else:
        assert scorer.score([row]) == pytest.approx(fitted.spark_scores([row]), abs=PARITY)


def test_genres_may_be_called_anything(
    spark: SparkSession, pmml_world: World, second: SecondScorer, tmp_path: Path
) -> None:
    names = ["Film Noir", '"quoted" <&>', "back\\slash", "(keine) é", "a'b", "1", "1.0"]
    called = sf.element_at(
        sf.array(*map(sf.lit, names)), 1 + sf.pmod(sf.xxhash64(*NUMBERS), len(names)).cast("int")
    )
    samples = read_samples(spark, pmml_world).withColumn("item_genre_1", called)
    # The label follows from the name, so that every model uses it.
    samples = samples.withColumn(LABEL, sf.col("item_genre_1").isin(names[::2]).cast("double"))
    fitted = Fitted(spark, pmml_world, samples, tmp_path / "model.pmml")
    with PmmlScorer(fitted.path) as scorer:
        fitted.assert_parity(as_rows(samples.limit(100)), scorer, second)


def test_features_without_any_value_are_left_out(
    spark: SparkSession, pmml_world: World, second: SecondScorer, tmp_path: Path
) -> None:
    nothing = {
        "release_year": sf.lit(None).cast("double"),
        "item_genre_3": sf.lit(None).cast("string"),
    }
    samples = read_samples(spark, pmml_world).withColumns(
        {**nothing, "user_rating_stddev": sf.lit(3.0), "user_genre_5": sf.lit("the only one")}
    )
    fitted = Fitted(spark, pmml_world, samples, tmp_path / "model.pmml")
    with PmmlScorer(fitted.path) as scorer:
        fitted.assert_parity(as_rows(samples.limit(50)), scorer, second)
    empty = samples.select(LABEL, *[sf.lit(None).cast("double").alias(n) for n in INPUTS])
    config = pmml_world.config.models.ctr_pmml
    with pytest.raises(DataError, match="no feature has a value"):
        fit(empty, config.model, config, seed=1)


@pytest.mark.parametrize("kept", [NUMBERS, GENRES])
def test_numbers_or_genres_may_be_missing_altogether(
    spark: SparkSession,
    pmml_world: World,
    second: SecondScorer,
    tmp_path: Path,
    kept: tuple[str, ...],
) -> None:
    samples = read_samples(spark, pmml_world)
    absent = {n: sf.lit(None).cast(samples.schema[n].dataType) for n in INPUTS if n not in kept}
    samples = samples.withColumns(absent)
    fitted = Fitted(spark, pmml_world, samples, tmp_path / "model.pmml")
    with PmmlScorer(fitted.path) as scorer:
        fitted.assert_parity(as_rows(samples.limit(50)), scorer, second)


def test_one_genre_for_all_and_users_with_one_event_are_no_obstacle(
    spark: SparkSession, new_world: Callable[..., World], tmp_path: Path, pmml_world: World
) -> None:
    world = new_world(ctr_pmml=pmml_world.config.models.ctr_pmml.model_dump())

    alone = world.user_id(0)

    def flatten(samples: Any) -> Any:
        for name in GENRES:
            place = samples.schema.get_field_index(name)
            samples = samples.set_column(place, name, [["Film"] * len(samples)])
        is_first = pc.equal(samples["user_rating_count"], 0)
        return samples.filter(pc.or_(pc.not_equal(samples["user_id"], alone), is_first))

    rewrite(world, "samples", flatten)
    built = registry.build("ctr_pmml", spark, world.inputs(tmp_path))
    assert built.metrics["auc"].value > 0.5


def test_the_same_run_twice_gives_the_same(
    spark: SparkSession, pmml_world: World, built: Built, tmp_path: Path
) -> None:
    again = registry.build("ctr_pmml", spark, pmml_world.inputs(tmp_path))
    assert again.metrics == built.metrics
    assert again.golden == built.golden


def test_all_models_are_compared_on_one_holdout(
    spark: SparkSession, pmml_world: World, built: Built, tmp_path: Path
) -> None:
    compared = compare(spark, pmml_world.inputs(tmp_path))
    assert tuple(compared) == PMML_MODELS
    assert compared[built.params["model"]] == built.metrics
    areas = [metrics["auc"] for metrics in compared.values()]
    assert areas[0].baselines == areas[1].baselines


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
