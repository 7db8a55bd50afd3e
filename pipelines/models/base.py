"""What a unit's build takes and gives: the one interface between models and releases."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from pipelines.config import PipelineConfig
from pipelines.lake import RunPaths

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: How a table's values are carried: item ids, a vector of floats, or UTF-8 text.
TableKind = Literal["ids", "vector", "text"]


class Metric(BaseModel):
    """A measured value beside its baselines, all on the same holdout."""

    # A manifest with a value that is not finite must be readable: its gate refuses it.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    value: float
    baselines: dict[str, float] = {}
    higher_is_better: bool = True

    def describe(self) -> str:
        """Return the value with its baselines beside it, in a few characters."""
        beside = ", ".join(f"{name} {value:.4g}" for name, value in self.baselines.items())
        return f"{self.value:.4g}" + (f" ({beside})" if beside else "")


class CalibrationBin(BaseModel):
    """Holdout rows whose predicted probability lies in [lower, upper), the last bin with its end.

    `mean_score` is the mean prediction and `positive_share` what was observed; both are None in a
    bin without rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lower: float
    upper: float
    count: int
    mean_score: float | None
    positive_share: float | None


class ScoredRequest(BaseModel):
    """A golden request: raw inputs by name, and the score that the trainer itself gave.

    An input is a text, a number, a list of texts or a vector, and None where it is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: dict[str, str | float | int | list[str] | list[float | None] | None]
    score: float


@dataclass(frozen=True)
class BuildInputs:
    """What a build may read: the run's hand-over folders and the configuration.

    `workdir` is a local folder of the build's own, empty when it starts.
    """

    run_date: date
    paths: RunPaths
    config: PipelineConfig
    workdir: Path


@dataclass(frozen=True)
class Table:
    """A table for Redis: a data frame with the columns ``id`` and ``value``.

    ``value`` is array<bigint> or array<string> (ids), array<float> (vector) or string (text).
    Ids are unique and never null.
    """

    name: str
    kind: TableKind
    frame: DataFrame


@dataclass(frozen=True)
class Built:
    """What a build made, before anything is published.

    `files` maps names under the version to local files or folders. `golden` holds requests with
    the trainer's own answers; tables need none here, since the release samples them itself.
    `calibration` is of units that score: their predictions of the holdout, in bins.
    """

    metrics: dict[str, Metric]
    params: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    golden: list[ScoredRequest] = field(default_factory=list)
    calibration: list[CalibrationBin] = field(default_factory=list)
