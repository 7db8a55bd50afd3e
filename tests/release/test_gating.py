"""Gates around a real build: the champion comes from object storage, verdicts into the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines import steps
from pipelines.config import Settings, Unit, load_pipeline_config
from pipelines.data.contract import DataSummary, IngestSummary
from pipelines.lake import RunPaths
from pipelines.models import registry as models
from pipelines.models.base import BuildInputs
from pipelines.models.feature_tables import feature_tables
from pipelines.models.stored import EVALUATION
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.gating import judge_data
from pipelines.release.manifest import Manifest
from pipelines.run import RunPlan, make_version
from tests.models.world import KINDS, USERS, World, make_world

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAY = date(2026, 3, 1)
ROWS = 20 * USERS
SMALL: dict[str, Any] = {
    "recs": {"rank": 8, "iterations": 5, "list_size": 6},
    "embeddings": {"dimension": 8, "iterations": 20, "neighbours": 5},
    "embedding_mlp": {
        "epochs": 12,
        "batch_size": 32,
        "learning_rate": 0.01,
        "dropout": 0.0,
        "hidden": [16],
    },
}
_SPARK_UNITS = ("recs", "embeddings", "ctr_pmml")

INGESTED = IngestSummary(
    run_date=DAY,
    events_path="e",
    items_path="i",
    input_rows=ROWS,
    accepted=ROWS,
    accepted_on_run_date=ROWS,
    quarantined={},
    exact_duplicates=0,
    earlier_rows=0,
    later_rows=0,
    days_written=1,
    unknown_items=0,
    items=len(KINDS),
    repeated_items=0,
    rejected_items=0,
    users=None,
)
TRAINED = DataSummary(
    run_date=DAY,
    lake_id="this one",
    rows=ROWS,
    users=USERS,
    items=len(KINDS),
    catalogue_items=len(KINDS),
    first_day=date(2026, 1, 1),
    last_day=date(2026, 2, 3),
    positives=ROWS // 2,
    holdout="last_fraction",
    holdout_days=None,
    holdout_fraction=0.2,
    holdout_rows=5 * USERS,
    holdout_users=USERS,
    set_aside_rows=0,
)


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world") / "gates", **SMALL)


class Runs:
    """Builds of one small world in a lake of the test's own."""

    def __init__(self, spark: SparkSession, settings: Settings, world: World) -> None:
        self.spark, self.settings, self.world = spark, settings, world

    def build(
        self,
        unit: Unit,
        attempt: int,
        gates: dict[str, Any] | None = None,
        ingested: dict[str, Any] | None = None,
        **training: Any,
    ) -> Manifest:
        """Build a version as a run whose data summary has `training`."""
        summary = TRAINED.model_copy(update=training)
        version = make_version(summary.run_date, attempt)
        paths = self.settings.lake.run(version)
        shutil.copytree(self.world.root, paths.root)
        summary.save(paths.data_summary)
        INGESTED.model_copy(update=ingested or {}).save(paths.ingest_summary)
        self._configure(gates or {})
        self._prepare(paths, summary.run_date, is_ranker=models.uses_features(unit))
        plan = self.plan(unit, version)
        steps.build_step(self.spark if unit in _SPARK_UNITS else None, self.settings, plan, unit)
        with self.context() as context:
            return context.registry.sealed(unit, version)

    def plan(self, unit: Unit, version: int) -> RunPlan:
        day = date.fromisoformat(f"{version}"[:8])
        return RunPlan(
            run_date=day, version=version, run_type="manual", run_id="test", units=(unit,)
        )

    def context(self) -> AbstractContextManager[ReleaseContext]:
        return release_context(self.settings, self.world.config.release, "test")

    def make_live(self, manifest: Manifest) -> None:
        with self.context() as context:
            assert context.online.switch(manifest.unit, manifest.version, expected=None)

    def _configure(self, gates: dict[str, Any]) -> None:
        # The world's events end weeks before its run date.
        data = {"max_age_days": 100.0, "min_volume_ratio": 0.0}
        content = {**self.world.config.model_dump(mode="json"), "gates": {"data": data, **gates}}
        config = type(self.world.config).model_validate(content)
        self.settings.config.write_text(config.model_dump_json())

    def _prepare(self, paths: RunPaths, day: date, *, is_ranker: bool) -> None:
        config = load_pipeline_config(self.settings.config)
        inputs = BuildInputs(day, paths, config, Path(paths.unit("features")))
        judge_data(self.spark, inputs)
        if is_ranker:
            tables = feature_tables(self.spark, inputs)
            inputs.workdir.mkdir(parents=True)
            steps._prepare(config, tables, steps._shared_tables(paths))


@pytest.fixture
def runs(
    spark: SparkSession,
    settings_for: Callable[..., Settings],
    small_world: World,
    tmp_path: Path,
) -> Iterator[Runs]:
    config = tmp_path / "pipeline.yaml"
    yield Runs(spark, settings_for(model_server=False, config=config), small_world)


def verdict(manifest: Manifest, name: str) -> tuple[str, str]:
    (gate,) = [gate for gate in manifest.gates if gate.name == name]
    return gate.verdict, gate.reason


@pytest.mark.parametrize("unit", ["recs", "embeddings", "ctr_pmml", "embedding_mlp"])
def test_the_champion_is_what_is_live_measured_again_on_the_same_holdout(
    runs: Runs, unit: Unit
) -> None:
    first = runs.build(unit, 1)
    assert first.refusal is None
    assert first.champion is None
    assert verdict(first, "champion")[0] == "not_compared"
    assert "first release" in verdict(first, "champion")[1]
    assert {gate.group for gate in first.gates} >= {"data", "model"}
    kept = first.files_below(EVALUATION)
    assert kept
    assert not [e.name for e in kept if "_SUCCESS" in e.name or "/." in e.name]

    runs.make_live(first)
    second = runs.build(unit, 2)
    assert second.champion == first.version
    assert second.refusal is None
    compared = [g for g in second.gates if g.baseline is not None and "champion" in g.reason]
    assert compared
    for gate in compared:
        # The same fit on the same holdout gives the value that it had when it was the candidate.
        assert gate.baseline == pytest.approx(first.metrics[gate.name].value, abs=1e-12)
        beside = second.metrics[gate.name].baselines[f"champion {first.version}"]
        assert beside == gate.baseline
    if unit in ("recs", "embeddings"):
        (overlap,) = [gate for gate in second.gates if gate.name == "overlap"]
        assert (overlap.verdict, overlap.value) == ("passed", 1.0)
    # Written anew, the files have the same names: what an unfinished attempt left is overwritten.
    assert {entry.name for entry in kept} == {e.name for e in second.files_below(EVALUATION)}


def test_a_refused_version_is_sealed_and_says_why(runs: Runs) -> None:
    gates = {"models": {"recs": {"ndcg_at_10": {"limit": 0.999}}}}
    manifest = runs.build("recs", 1, gates, {"unknown_items": ROWS // 2})
    assert manifest.refusal is not None
    assert "ndcg_at_10 is" in manifest.refusal
    assert "unknown_item_share is 0.5" in manifest.refusal
    summary = steps.finish_step(runs.settings, runs.plan("recs", manifest.version))
    (result,) = summary.units
    assert (result.outcome, result.reason) == ("refused", manifest.refusal)
    assert result.metrics
    steps.require_success(summary)


def test_a_champion_that_can_not_be_compared_stops_nothing(runs: Runs) -> None:
    first = runs.build("recs", 1)
    runs.make_live(first)

    def said(attempt: int, **training: Any) -> tuple[str, str]:
        manifest = runs.build("recs", attempt, **training)
        assert manifest.champion is None
        assert not any("champion" in b for m in manifest.metrics.values() for b in m.baselines)
        assert manifest.refusal is None
        assert verdict(manifest, "overlap")[1]
        kind, reason = verdict(manifest, "champion")
        assert kind == "not_compared"
        assert "\n" not in reason
        return reason, verdict(manifest, "overlap")[0]

    assert "is after 2026-02-28" in said(1, run_date=date(2026, 2, 28))[0]
    assert said(2, lake_id="another")[1] == "not_compared"
    with runs.context() as context:
        spoil(context, first, EVALUATION)
        reason, overlap = said(3)
        assert "SHA-256 differs" in reason
        assert overlap == "passed"
        spoil(context, first, "tables/user_items")
        assert said(4)[1] == "not_compared"
        forget(context, first, EVALUATION)
        assert "has no evaluation/" in said(5)[0]
        context.registry.objects.put_text(
            context.registry.key("recs", first.version, "manifest.json"), "{}"
        )
        assert str(first.version) in said(6)[0]


def spoil(context: ReleaseContext, manifest: Manifest, folder: str) -> None:
    entry = manifest.files_below(folder)[0]
    key = context.registry.key(manifest.unit, manifest.version, entry.name)
    context.registry.objects.put_text(key, "spoiled")


def forget(context: ReleaseContext, manifest: Manifest, folder: str) -> None:
    """Make the version look as if it came from before there were such files."""
    lost = manifest.files_below(folder)
    files = [entry for entry in manifest.files if entry not in lost]
    context.registry.seal(manifest.model_copy(update={"files": files}))


def test_a_manifest_of_an_earlier_ferry_is_read(runs: Runs) -> None:
    content = runs.build("recs", 1).model_dump(mode="json")
    del content["gates"], content["champion"], content["data"]["training"]["lake_id"]
    old = Manifest.model_validate(content)
    assert (old.gates, old.champion, old.refusal) == ([], None, None)
