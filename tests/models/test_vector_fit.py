"""A fit that is kept is measured on another run's holdout as it would have been served there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.models import registry
from pipelines.models.blend import BlendWeights, half
from pipelines.models.interactions import read_events
from pipelines.models.list_fit import ListFit
from pipelines.models.stored import EVALUATION, tidy_spark_files
from pipelines.models.topn import top_unseen
from pipelines.models.vector_fit import VectorFit, list_holdout
from pipelines.models_config import Unit
from tests.models.world import World, make_world, rewrite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize("unit", ["recs", "embeddings"])
def test_who_and_what_the_champion_does_not_know(
    spark: SparkSession, world: World, tmp_path: Path, unit: Unit
) -> None:
    """The champion was built before one user and one item were there."""
    models: dict[str, Any] = {
        "embeddings": {"dimension": 8, "item2vec": {"iterations": 5}},
        "recs": {"als": {"rank": 4}},
    }
    earlier = make_world(tmp_path / "earlier", **models)
    stranger, novelty = world.user_id(3), world.item_id(0)
    rewrite(earlier, "items", lambda t: t.filter(pc.not_equal(t["item_id"], novelty)))
    rewrite(
        earlier,
        "events",
        lambda t: t.filter(
            pc.and_(pc.not_equal(t["user_id"], stranger), pc.not_equal(t["item_id"], novelty))
        ),
    )
    built = registry.build(unit, spark, earlier.inputs(tmp_path / "champion"))
    folder = built.files[EVALUATION]
    inputs = world.inputs(tmp_path / "today")
    metrics = registry.evaluate_stored(unit, spark, inputs, folder)
    assert 0 < metrics["ndcg_at_10"] < 1
    assert set(metrics) <= set(built.metrics)

    with list_holdout(spark, inputs, read_events(spark, inputs)) as holdout:
        if unit == "recs":
            blended = ListFit.read(spark, folder)
            scorer = blended.blend(holdout.catalogue, BlendWeights.read(folder / "blend"))
            users = holdout.users.join(blended.users, "id", "left").select("*", half())
            lists = top_unseen(users, scorer, 50).collect()
        else:
            fit = VectorFit.read(spark, folder)
            candidates = fit.candidates(holdout.catalogue)
            lists = holdout.lists(candidates, fit.users, 50).collect()
    answers = {row["id"]: row["value"] for row in lists}
    known = pq.read_table(folder / "items").sort_by(
        [("popularity", "descending"), ("item_id", "ascending")]
    )["item_id"]
    events = pq.read_table(world.root / "events")
    training = events.filter(pc.invert(events["is_holdout"]))
    seen = {
        user: set(training.filter(pc.equal(training["user_id"], user))["item_id"].to_pylist())
        for user in answers
    }
    expected = [item for item in known.to_pylist() if item not in seen[stranger]]
    # By what was popular to the champion; behind that, what it does not know.
    assert answers[stranger][: len(expected)] == expected
    for user, items in answers.items():
        assert not seen[user] & set(items), "seen by today, also if the champion did not know of it"
        if novelty in items:
            assert items.index(novelty) >= len(items) - 1 - (36 - len(known))


def test_names_of_files_are_the_same_whenever_they_are_written(tmp_path: Path) -> None:
    random = "0f8fad5b-d9cb-469f-a165-70867728950e"
    names = {
        f"data/part-00000-{random}-c000.snappy.parquet": "data/part-00000.snappy.parquet",
        f"data/part-00001-{random}.snappy.parquet": "data/part-00001.snappy.parquet",
        f"data/.part-00000-{random}-c000.snappy.parquet.crc": None,
        "metadata/part-00000": "metadata/part-00000",
        "metadata/_SUCCESS": None,
    }
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    tidy_spark_files(tmp_path)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {name for name in names.values() if name}
