"""The manifest: written last, it seals a version and says all about it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipelines.evaluation.gates import GateResult, refusal
from pipelines.models.base import CalibrationBin, Metric, ScoredRequest
from pipelines.online.layout import TableMeta, Value
from pipelines.run import RunType

#: Names of a version's artifacts.
GOLDEN_FILE = "golden.json"
PMML_FILE = "model.pmml"
SAVED_MODEL = "saved_model"


class FileEntry(BaseModel):
    """One file of a version: its name below the version, bytes and SHA-256 in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """All about one sealed version of one unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    version: int
    run_date: date
    run_type: RunType
    run_id: str
    created_at: datetime
    code_version: str
    data: dict[str, Any]
    params: dict[str, Any]
    metrics: dict[str, Metric]
    tables: list[TableMeta]
    files: list[FileEntry]
    #: The live version whose evaluated fit was judged on the same holdout.
    champion: int | None = None
    gates: list[GateResult] = []
    #: Of a unit that scores: its predictions of the holdout, in bins.
    calibration: list[CalibrationBin] = []

    @property
    def refusal(self) -> str | None:
        """Why the gates refuse this version, or None: it is evidence, and never goes live."""
        return refusal(self.gates)

    @property
    def facts(self) -> dict[str, Any]:
        """What a release tells of itself: version, run_date (ISO), and metrics by name."""
        return {
            "version": self.version,
            "run_date": self.run_date.isoformat(),
            "metrics": {name: metric.value for name, metric in self.metrics.items()},
        }

    def files_below(self, folder: str) -> list[FileEntry]:
        """Return the files whose name starts with ``folder/``."""
        return [entry for entry in self.files if entry.name.startswith(f"{folder}/")]

    @property
    def has_model(self) -> bool:
        """Whether the version has a SavedModel for the model servers."""
        return bool(self.files_below(SAVED_MODEL))

    @property
    def has_pmml(self) -> bool:
        """Whether the version has a PMML."""
        return any(entry.name == PMML_FILE for entry in self.files)

    def table_parts(self, table: str) -> list[FileEntry]:
        """Return the Parquet files that hold a table."""
        return self.files_below(f"tables/{table}")


class GoldenTable(BaseModel):
    """Rows of a table as the trainer made them: what Redis must answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    rows: dict[str, Value]


class Golden(BaseModel):
    """A version's golden requests with the trainer's own answers (``golden.json``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tables: list[GoldenTable] = []
    scores: list[ScoredRequest] = []


class StagedTable(BaseModel):
    """One table as it is in Redis now, and what it cost.

    `write_seconds` and `verify_seconds` add up over all that worked at the same time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    payload_bytes: int
    redis_bytes: int
    checksum: str
    sampled: int
    write_seconds: float
    verify_seconds: float


class StagedTables(BaseModel):
    """What staging wrote to Redis and compared (``releases/<unit>/staged/<version>.json``).

    The publish gates stand here and not in the manifest, which is sealed before anything is
    published. Where one refuses, `tables` lacks what was not staged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    version: int
    tables: dict[str, StagedTable] = {}
    gates: list[GateResult]
    at: datetime
    seconds: float

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables.values())

    @property
    def redis_bytes(self) -> int:
        """Bytes of all tables in Redis."""
        return sum(table.redis_bytes for table in self.tables.values())

    def describe(self) -> str:
        """Return all of it in one line."""
        write = sum(table.write_seconds for table in self.tables.values())
        verify = sum(table.verify_seconds for table in self.tables.values())
        return (
            f"{self.rows:,} rows in {len(self.tables)} tables, {self.redis_bytes / 1e6:,.1f} MB in "
            f"Redis, in {self.seconds:.1f}s ({verify / max(write + verify, 1e-9):.0%} of the work "
            f"was reading back); counts and checksums agree"
        )
