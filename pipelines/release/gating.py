"""The gates of a build: measure, fetch what is live, compare, and say what came of it.

The champion is the version that the pointer names. Its evaluated fit, which
:mod:`pipelines.models.stored` describes, is fetched and measured on this run's holdout, through
the code that measures the new one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from pipelines.data.contract import DataSummary, IngestSummary
from pipelines.errors import ReleaseError
from pipelines.evaluation.data_gates import data_gates
from pipelines.evaluation.gates import GateResult, not_compared
from pipelines.evaluation.list_gates import list_gates, overlap_gate
from pipelines.evaluation.model_gates import champion_gates, model_gates, why_not_comparable
from pipelines.models import registry as models
from pipelines.models.base import BuildInputs, Built
from pipelines.models.stored import EVALUATION
from pipelines.models_config import Unit
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.registry import Registry
from pipelines.release.state import live_version
from pipelines.release.tables import PreparedTables

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)

#: The tables whose lists are gated.
_LISTS: dict[Unit, str] = {"recs": "user_items", "embeddings": "neighbours"}
_RESULTS = TypeAdapter(list[GateResult])


@dataclass(frozen=True)
class Judgement:
    """All verdicts on a build; `champion` is the version that it was compared with.

    `built` has the champion's values among the baselines of its metrics.
    """

    gates: list[GateResult]
    champion: int | None
    built: Built


@dataclass(frozen=True)
class Candidate:
    """A build that is to be judged."""

    unit: Unit
    inputs: BuildInputs
    built: Built
    prepared: Sequence[PreparedTables]

    def parts(self, table: str) -> list[Path]:
        """Return the Parquet files of one of the build's tables."""
        return [part for tables in self.prepared for part in tables.parts(table)]


def judge_data(spark: SparkSession, inputs: BuildInputs) -> list[GateResult]:
    """Judge the run's data, once for all units, and leave the verdicts beside the summaries."""
    from pipelines.evaluation.volume import measure_volume

    config, paths = inputs.config.gates.data, inputs.paths
    ingest = IngestSummary.load(paths.ingest_summary)
    volume = measure_volume(
        spark.read.parquet(paths.events),
        inputs.run_date,
        config.volume_days,
        inputs.config.data.calendar,
        ingest.incomplete_days,
    )
    gates = data_gates(ingest, volume, config)
    Path(paths.data_gates).write_bytes(_RESULTS.dump_json(gates, indent=2))
    _log(gates, "data")
    return gates


def judge_build(
    context: ReleaseContext, spark: SparkSession | None, candidate: Candidate
) -> Judgement:
    """Judge one unit's build: its data, its metrics, its lists, and all against what is live.

    Whatever is wrong with the live version's artifacts makes its gates ``not_compared``.

    Raises:
        ServiceError: Redis does not answer.
    """
    unit, inputs, built = candidate.unit, candidate.inputs, candidate.built
    gates = _RESULTS.validate_json(Path(inputs.paths.data_gates).read_bytes())
    gates += model_gates(unit, built.metrics, getattr(inputs.config.gates.models, unit))
    live = live_version(context, unit)
    values, compared = _judge_against_champion(context.registry, spark, candidate, live)
    gates += compared
    if spark is not None and unit in _LISTS:
        gates += _judge_lists(context.registry, spark, candidate, live)
    _log(gates, unit)
    return Judgement(gates, live if values else None, _beside_champion(built, live, values))


def _log(gates: Sequence[GateResult], what: str) -> None:
    for gate in gates:
        level = logging.INFO if gate.verdict == "passed" else logging.WARNING
        log.log(level, "%s: %s", what, gate.describe())


def _beside_champion(built: Built, live: int | None, values: Mapping[str, float]) -> Built:
    """Put the champion's values among the baselines of the metrics."""
    metrics = dict(built.metrics)
    for name in values.keys() & metrics.keys():
        beside = {**metrics[name].baselines, f"champion {live}": values[name]}
        metrics[name] = metrics[name].model_copy(update={"baselines": beside})
    return replace(built, metrics=metrics)


# --- what is live ---


@dataclass(frozen=True)
class _Live:
    """The live version, its files and the data that it was trained on."""

    registry: Registry
    manifest: Manifest
    training: DataSummary

    @classmethod
    def find(cls, registry: Registry, unit: Unit, version: int) -> _Live:
        manifest = registry.sealed(unit, version)
        return cls(registry, manifest, DataSummary.model_validate(manifest.data["training"]))

    def fetch(self, folder: str, target: Path) -> Path:
        """Download what lies below `folder` to `target`, each file verified."""
        entries = self.manifest.files_below(folder)
        if not entries:
            raise ReleaseError(f"it has no {folder}/: an earlier Ferry made it")
        for entry in entries:
            name = entry.name.removeprefix(f"{folder}/")
            self.registry.download(self.manifest, entry, target / name)
        return target


def _judge_against_champion(
    registry: Registry, spark: SparkSession | None, candidate: Candidate, version: int | None
) -> tuple[dict[str, float], list[GateResult]]:
    """Return the champion's metrics on this run's holdout (none if not compared), and verdicts."""
    if version is None:
        reason = "nothing is live: this is the first release, floors and baselines apply"
        return {}, [not_compared("model", "champion", reason)]
    unit, inputs = candidate.unit, candidate.inputs
    try:
        live = _Live.find(registry, unit, version)
        today = DataSummary.load(inputs.paths.data_summary)
        if why := why_not_comparable(live.training, today):
            return {}, [not_compared("model", "champion", f"{version} is live, and {why}")]
        folder = live.fetch(EVALUATION, inputs.workdir / "champion")
        values = models.evaluate_stored(unit, spark, inputs, folder)
    except Exception as error:  # noqa: BLE001
        # Made by other code from other data: whatever it raises must not stop today's build.
        return {}, [not_compared("model", "champion", _unusable(version, error))]
    config = getattr(inputs.config.gates.models, unit)
    return values, champion_gates(unit, candidate.built.metrics, version, values, config)


def _unusable(version: int, error: Exception) -> str:
    log.warning("the live version %s can't be compared with", version, exc_info=error)
    first_line = str(error).strip().partition("\n")[0]
    return f"{version} is live, and can't be compared with: {first_line or type(error).__name__}"


# --- lists ---


def _judge_lists(
    registry: Registry, spark: SparkSession, candidate: Candidate, version: int | None
) -> list[GateResult]:
    from pipelines.evaluation.lists import measure_lists

    unit, inputs = candidate.unit, candidate.inputs
    config = getattr(inputs.config.gates.lists, unit)
    today = DataSummary.load(inputs.paths.data_summary)
    lists = spark.read.parquet(*map(str, candidate.parts(_LISTS[unit])))
    gates = list_gates(unit, measure_lists(lists, today.catalogue_items), config)
    if version is None:
        reason = "nothing is live: there are no lists to compare with"
        return [*gates, not_compared("lists", "overlap", reason)]
    try:
        live = _Live.find(registry, unit, version)
        if live.training.lake_id is None or live.training.lake_id != today.lake_id:
            reason = f"{version} is live, and was trained from another lake"
            return [*gates, not_compared("lists", "overlap", reason)]
        overlap = _overlap_with(live, lists, unit, inputs.workdir / "live_lists")
    except Exception as error:  # noqa: BLE001
        # As above.
        return [*gates, not_compared("lists", "overlap", _unusable(version, error))]
    return [*gates, overlap_gate(unit, overlap, version, config)]


def _overlap_with(live: _Live, lists: DataFrame, unit: Unit, folder: Path) -> float | None:
    from pipelines.evaluation.lists import mean_overlap

    live.fetch(f"tables/{_LISTS[unit]}", folder)
    return mean_overlap(lists, lists.sparkSession.read.parquet(str(folder)))
