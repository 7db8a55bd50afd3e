"""Gates around a real build: the champion comes from object storage, verdicts into the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.config import PipelineConfig, Settings, load_pipeline_config
from pipelines.data.contract import DataSummary, IngestSummary
from pipelines.evaluation.gates import GateResult, refusal
from pipelines.models import registry as models
from pipelines.models.base import BuildInputs, Built
from pipelines.models.feature_tables import feature_tables
from pipelines.models.stored import EVALUATION
from pipelines.models_config import Unit
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.gating import Candidate, Judgement, judge_build, judge_data
from pipelines.release.inputs import RunInputs, settings_inputs
from pipelines.release.manifest import Manifest
from pipelines.release.tables import PreparedTables
from pipelines.run import RunPlan, make_version
from pipelines.steps.data import prepare
from pipelines.steps.ending import finish_step, require_success
from pipelines.steps.units import build_step
from tests.models.world import KINDS, USERS, World, make_world
from tests.release.pointing import point_at

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAY = date(2026, 3, 1)
ROWS = 20 * USERS
SMALL: dict[str, Any] = {
    "recs": {"als": {"rank": 8, "iterations": 5}, "list_size": 6},
    "embeddings": {"dimension": 8, "neighbours": 5, "item2vec": {"iterations": 20}},
    "ctr_pmml": {"gradient_boosted_trees": {"trees": 6, "depth": 3, "min_leaf_samples": 5}},
    "embedding_mlp": {
        "epochs": 12,
        "batch_size": 32,
        "learning_rate": 0.01,
        "dropout": 0.0,
        "hidden": [16],
    },
}
READ = {"the events": "as they are"}
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

    def build(self, unit: Unit, **gates: Any) -> Manifest:
        """Build the unit's first version as a run does."""
        version = make_version(DAY, 1)
        paths = self.settings.lake.run(version)
        shutil.copytree(self.world.root, paths.root)
        TRAINED.save(paths.data_summary)
        INGESTED.save(paths.ingest_summary)
        # The world's events end weeks before its run date.
        gates["data"] = {"max_age_days": 100.0, "min_volume_ratio": 0.0, **gates.get("data", {})}
        content = {**self.world.config.model_dump(mode="json"), "gates": gates}
        config = PipelineConfig.model_validate(content)
        self.settings.config.write_text(config.model_dump_json())
        inputs = BuildInputs(DAY, paths, config, Path(paths.unit("features")))
        judge_data(self.spark, inputs)
        settings = {unit: settings_inputs(config, unit)}
        RunInputs(data=READ, settings=settings, unchanged={}).save(paths.inputs)
        if models.feature_tables(unit):
            inputs.workdir.mkdir(parents=True)
            prepare(config, feature_tables(self.spark, inputs), Path(paths.feature_tables))
        build_step(self._spark_for(unit), self.settings, self.plan(unit), unit)
        with self.context() as context:
            return context.registry.sealed(unit, version)

    def judge_again(self, live: Manifest, workdir: Path, **training: Any) -> Judgement:
        """Judge a candidate with the same metrics and lists, of a run with another `training`."""
        unit: Unit = live.unit  # type: ignore[assignment]
        paths = self.settings.lake.run(live.version)
        TRAINED.model_copy(update=training).save(paths.data_summary)
        workdir.mkdir()
        inputs = BuildInputs(DAY, paths, load_pipeline_config(self.settings.config), workdir)
        tables = Path(paths.unit(unit)) / "tables"
        prepared = [PreparedTables.load(tables)] if tables.exists() else []
        candidate = Candidate(unit, inputs, Built(metrics=live.metrics, params={}), prepared)
        with self.context() as context:
            return judge_build(context, self._spark_for(unit), candidate)

    def plan(self, unit: Unit) -> RunPlan:
        version = make_version(DAY, 1)
        return RunPlan(
            run_date=DAY, version=version, run_type="manual", run_id="test", units=(unit,)
        )

    def context(self) -> AbstractContextManager[ReleaseContext]:
        return release_context(self.settings, self.world.config.release, "test")

    def make_live(self, manifest: Manifest) -> None:
        with self.context() as context:
            point_at(context.online, manifest.unit, manifest.version)

    def _spark_for(self, unit: Unit) -> SparkSession | None:
        return self.spark if models.needs_spark(unit) else None


@pytest.fixture
def runs(
    spark: SparkSession,
    settings_for: Callable[..., Settings],
    small_world: World,
    tmp_path: Path,
) -> Runs:
    config = tmp_path / "pipeline.yaml"
    return Runs(spark, settings_for(model_server=False, config=config), small_world)


def verdict(gates: Sequence[GateResult], name: str) -> tuple[str, str]:
    (gate,) = [gate for gate in gates if gate.name == name]
    assert "\n" not in gate.reason
    return gate.verdict, gate.reason


@pytest.mark.parametrize(
    "unit", ["recs", "embeddings", "interest_ranker", "ctr_pmml", "embedding_mlp"]
)
def test_the_champion_is_what_is_live_measured_again_on_the_same_holdout(
    runs: Runs, unit: Unit, tmp_path: Path
) -> None:
    first = runs.build(unit)
    assert first.refusal is None
    assert first.champion is None
    kind, reason = verdict(first.gates, "champion")
    assert kind == "not_compared"
    assert "first release" in reason
    assert {gate.group for gate in first.gates} >= {"data", "model"}
    assert READ.items() <= first.data["inputs"].items()
    assert first.data["inputs"].keys() >= {"the settings", "the code"}
    kept = first.files_below(EVALUATION)
    assert kept
    assert not [e.name for e in kept if "_SUCCESS" in e.name or "/." in e.name]

    runs.make_live(first)
    judged = runs.judge_again(first, tmp_path / "second")
    assert judged.champion == first.version
    assert refusal(judged.gates) is None
    compared = [gate for gate in judged.gates if gate.name.endswith(" against champion")]
    assert compared
    for gate in compared:
        # The same fit on the same holdout gives the value that it had when it was the candidate.
        name = gate.name.split()[0]
        assert gate.baseline == pytest.approx(first.metrics[name].value, abs=1e-12)
        beside = judged.built.metrics[name].baselines[f"champion {first.version}"]
        assert beside == gate.baseline
    if unit in ("recs", "embeddings"):
        (overlap,) = [gate for gate in judged.gates if gate.name == "overlap"]
        assert (overlap.verdict, overlap.value) == ("passed", 1.0)

    content = first.model_dump(mode="json")
    del content["gates"], content["champion"], content["data"]["training"]["lake_id"]
    of_an_earlier_ferry = Manifest.model_validate(content)
    assert (of_an_earlier_ferry.gates, of_an_earlier_ferry.refusal) == ([], None)


def test_a_refused_version_is_sealed_and_says_why(runs: Runs) -> None:
    limits = {"recs": {"ndcg_at_10": {"limit": 0.999}}}
    manifest = runs.build("recs", models=limits, data={"max_age_days": 1.0})
    assert manifest.refusal is not None
    assert "ndcg_at_10 is" in manifest.refusal
    assert "age_days is" in manifest.refusal
    summary = finish_step(runs.settings, runs.plan("recs"))
    (result,) = summary.units
    assert result.outcome == "refused"
    assert result.reason.endswith(f"was refused by its gates: {manifest.refusal}")
    assert result.metrics
    require_success(summary)


def test_a_champion_that_can_not_be_compared_stops_nothing(runs: Runs, tmp_path: Path) -> None:
    first = runs.build("recs")
    runs.make_live(first)

    def said(name: str, **training: Any) -> tuple[str, str]:
        judged = runs.judge_again(first, tmp_path / name, **training)
        assert judged.champion is None
        assert judged.built.metrics == first.metrics
        assert refusal(judged.gates) is None
        kind, reason = verdict(judged.gates, "champion")
        assert kind == "not_compared"
        return reason, verdict(judged.gates, "overlap")[0]

    older = said("older", run_date=date(2026, 2, 28))
    assert "is after 2026-02-28" in older[0]
    assert older[1] == "passed"
    assert said("elsewhere", lake_id="another")[1] == "not_compared"
    with runs.context() as context:
        spoil(context, first, EVALUATION)
        assert "SHA-256 differs" in said("spoiled")[0]
        spoil(context, first, "tables/user_items")
        assert said("spoiled lists")[1] == "not_compared"
        forget(context, first, EVALUATION)
        assert "has no evaluation/" in said("without")[0]
        garble(context, first)
        assert "can't be compared with: " in said("garbled")[0]
        key = context.registry.key("recs", first.version, "manifest.json")
        context.registry.objects.put_text(key, "{}")
        assert str(first.version) in said("no manifest")[0]


def spoil(context: ReleaseContext, manifest: Manifest, folder: str) -> None:
    entry = manifest.files_below(folder)[0]
    key = context.registry.key(manifest.unit, manifest.version, entry.name)
    context.registry.objects.put_text(key, "spoiled")


def forget(context: ReleaseContext, manifest: Manifest, folder: str) -> None:
    """Make the version look as if it came from before there were such files."""
    lost = manifest.files_below(folder)
    files = [entry for entry in manifest.files if entry not in lost]
    context.registry.seal(manifest.model_copy(update={"files": files}))


def garble(context: ReleaseContext, manifest: Manifest) -> None:
    """Seal files under the names of the evaluated fit that no code of today can read."""
    path = Path(context.settings.config)
    entries = []
    for name in ("users", "items"):
        entry = f"{EVALUATION}/{name}/part-00000.parquet"
        key = context.registry.key(manifest.unit, manifest.version, entry)
        entries.append(context.registry.objects.upload(path, key, entry, lambda *_: None))
    context.registry.seal(manifest.model_copy(update={"files": entries}))
