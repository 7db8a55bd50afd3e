"""Configuration: endpoints and secrets from the environment, everything else from `pipeline.yaml`.

The environment uses the prefix ``FERRY_``; AWS credentials go under their usual names. When the
embedded services run, they leave an environment file that fills in what is not set, so that the
``ferry`` commands find them without further ado.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from dotenv import dotenv_values
from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pipelines.day_calendar import DayCalendar
from pipelines.errors import ConfigError
from pipelines.gates_config import GatesConfig
from pipelines.lake import Lake
from pipelines.models_config import ModelsConfig
from pipelines.schedule import Schedule
from pipelines.section import Section

PROJECT_ROOT = Path(__file__).resolve().parent.parent

IdType = Literal["int64", "string"]


class Replica(NamedTuple):
    """The address of one TensorFlow Serving replica."""

    host: str
    grpc_port: int
    rest_port: int

    @property
    def grpc(self) -> str:
        """``host:port`` of the gRPC service."""
        return f"{self.host}:{self.grpc_port}"

    @property
    def rest(self) -> str:
        """Base URL of the REST service."""
        return f"http://{self.host}:{self.rest_port}"


class Settings(BaseSettings):
    """Endpoints and secrets, from the environment (prefix ``FERRY_``)."""

    model_config = SettingsConfigDict(env_prefix="FERRY_", extra="ignore", frozen=True)

    config: Path = PROJECT_ROOT / "pipeline.yaml"
    lake_root: str = Field(validation_alias="FERRY_LAKE")
    redis_url: SecretStr
    redis_prefix: str = "ferry"
    s3_endpoint_url: str | None = None
    #: Under the names that boto3 knows; without them it looks in its other usual places.
    s3_key_id: SecretStr | None = Field(None, validation_alias="AWS_ACCESS_KEY_ID")
    s3_key: SecretStr | None = Field(None, validation_alias="AWS_SECRET_ACCESS_KEY")
    s3_token: SecretStr | None = Field(None, validation_alias="AWS_SESSION_TOKEN")
    s3_region: str | None = Field(None, validation_alias="AWS_DEFAULT_REGION")
    bucket: str
    tf_serving: Annotated[tuple[Replica, ...], NoDecode]
    model_dir: Path
    spark_master: str = "local[2]"

    @field_validator("tf_serving", mode="before")
    @classmethod
    def _parse_replicas(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        replicas = []
        for part in filter(None, (p.strip() for p in value.split(","))):
            fields = part.split(":")
            if len(fields) != 3 or not fields[1].isdigit() or not fields[2].isdigit():
                raise ValueError(f"{part!r} is not host:grpc_port:rest_port")
            replicas.append(Replica(fields[0], int(fields[1]), int(fields[2])))
        if not replicas:
            raise ValueError("names no replica")
        return tuple(replicas)

    @property
    def lake(self) -> Lake:
        """The lake's folders."""
        return Lake(self.lake_root.rstrip("/"))


def environment_file() -> Path:
    """Return where the embedded services leave their environment (it need not exist)."""
    return Path(os.environ.get("FERRY_HOME", PROJECT_ROOT / ".ferry")) / "env"


def _fill_environment(values: dict[str, str | None]) -> None:
    """Set the variables that are not set yet.

    AWS credentials of one's own, meant for another S3, don't belong to the embedded one: where its
    address comes from the file, so do its keys.
    """
    is_embedded_s3 = "FERRY_S3_ENDPOINT_URL" in values.keys() - os.environ.keys()
    for name, value in values.items():
        if name not in os.environ or (is_embedded_s3 and name.startswith("AWS_")):
            os.environ[name] = value or ""


def load_settings() -> Settings:
    """Read the settings from the environment, filled up from :func:`environment_file`.

    Raises:
        ConfigError: a variable is missing or malformed; the message names it.
    """
    _fill_environment(dotenv_values(environment_file()))
    return settings_with({})


def settings_with(variables: Mapping[str, str]) -> Settings:
    """Return the settings that these variables give, over those of the environment.

    The environment stays as it is: for a process that is not Ferry's own.

    Raises:
        ConfigError: a variable is missing or malformed; the message names it.
    """
    values = {
        name.lower().removeprefix("ferry_") if name.startswith("FERRY_") else name: value
        for name, value in variables.items()
    }
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if not name.startswith(("FERRY_", "AWS_")):
            name = f"FERRY_{name.upper()}"
        if first["type"] == "missing":
            raise ConfigError(
                f"environment variable {name} is not set: start the embedded services with "
                "'make up', or set it to your own"
            ) from error
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"environment variable {name}: {reason}") from error


class FileSource(Section):
    """Where source files are and how to read them."""

    path: str
    format: Literal["csv", "jsonl", "parquet"] = "csv"
    delimiter: str = Field(",", min_length=1, max_length=1)
    header: bool = True
    #: Contract name -> source column name; for CSV without a header, its position from 0.
    columns: dict[str, str | int] = Field({})

    def resolve(self, lake: Lake, run_date: str) -> str:
        """Return the path with ``{landing}`` and ``{run_date}`` filled in.

        Raises:
            ConfigError: the path has another placeholder.
        """
        try:
            return self.path.format(landing=lake.landing, run_date=run_date)
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"data source path {self.path!r}: the placeholders are {{landing}} and {{run_date}}"
            ) from error


class EventSource(FileSource):
    """The events; required columns: user_id, item_id, rating, timestamp."""

    timestamp_format: Literal["epoch_seconds", "epoch_millis", "iso8601"] = "epoch_seconds"

    @property
    def is_daily(self) -> bool:
        """Whether each run date has files of its own."""
        return "{run_date}" in self.path

    @property
    def is_landed(self) -> bool:
        """Whether they come from the lake's landing area."""
        return "{landing}" in self.path


class ItemSource(FileSource):
    """The item catalogue; columns: item_id, title, genres, optional release_year."""

    genre_separator: str = Field("|", min_length=1)


class DataConfig(Section):
    """The data source, its column mapping, and what counts as a valid row."""

    events: EventSource
    items: ItemSource
    users: FileSource | None = None
    user_id_type: IdType = "int64"
    item_id_type: IdType = "int64"
    min_rating: float = 0.5
    max_rating: float = 5.0
    positive_rating: float = 3.5
    #: Where a day begins and ends at midnight, and so where files named by day are cut (IANA name).
    time_zone: str = "UTC"
    #: A day counts as complete so long after its end.
    complete_after_hours: float = Field(0, ge=0, lt=24)
    #: Late and corrected rows are taken in for so many days before the run date.
    late_days: int = Field(7, ge=0)

    @property
    def calendar(self) -> DayCalendar:
        """The days of the data."""
        return DayCalendar(self.time_zone, timedelta(hours=self.complete_after_hours))

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("no time zone of this name, such as Europe/Berlin or UTC") from error
        return value

    @model_validator(mode="after")
    def _check_ratings(self) -> DataConfig:
        if not self.min_rating <= self.positive_rating <= self.max_rating:
            raise ValueError("positive_rating must lie between min_rating and max_rating")
        return self


class EvaluationConfig(Section):
    """The temporal holdout."""

    holdout_days: int = Field(7, ge=1)
    #: Below this many users with earlier events, the last `holdout_fraction` of each user is used.
    min_holdout_users: int = Field(100, ge=1)
    holdout_fraction: float = Field(0.2, gt=0, lt=1)


class FeaturesConfig(Section):
    """What is computed for every sample, user and item."""

    #: Latest positive items of a user that sequence models read.
    history_length: int = Field(30, ge=1, le=500)
    #: From about this many events on, features of days that have not changed are kept.
    incremental_from: int = Field(2_000_000, ge=0)


class ReleaseConfig(Section):
    """Staging and verification."""

    bucket_size: int = Field(32, ge=1, le=512)
    golden_size: int = Field(32, ge=1)
    load_timeout_seconds: float = Field(180.0, gt=0)
    #: Share of Redis's `maxmemory` that staging leaves free.
    memory_reserve: float = Field(0.05, ge=0, lt=1)


class RetentionConfig(Section):
    """How many of a unit's newest versions are kept besides those that are needed."""

    #: In Redis and on the model servers.
    online: int = Field(3, ge=1)
    #: In object storage.
    stored: int = Field(14, ge=1)


class NotifierConfig(Section):
    """Which notifier of Airflow's tells people, and what it is made with."""

    #: Dotted path of a class; see docs/operating.md.
    notifier: str = Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
    #: Its arguments; ``{subject}``, ``{message}`` and ``{html}``, the message escaped for HTML, are
    #: filled in where they stand in a text.
    arguments: dict[str, Any] = Field({})


class OperationsConfig(Section):
    """When runs start, and how they are watched."""

    #: When the daily run starts, by the clock of `data.time_zone`: a cron expression with one start
    #: a day at most, or @daily, @weekly, @monthly; None: only when somebody starts it.
    schedule: str | None = "0 3 * * *"
    #: A run that asks for approval waits so long for an answer.
    approval_hours: float = Field(12, gt=0)
    #: What happens to a version when nobody answers.
    approval_default: Literal["reject", "approve"] = "reject"
    #: An alert is sent when a run has not ended so long after it was queued.
    deadline_hours: float = Field(4, gt=0)
    #: An alert is sent when what is live was built from data older than this; None: once a run
    #: of the schedule has been missed.
    max_live_age_days: int | None = Field(None, ge=0)
    #: So many tasks that train or compute features run at the same time, over all runs; None: as
    #: many as fit the machine.
    heavy_tasks: int | None = Field(None, ge=1, le=32)
    #: Leave live what a run has nothing new for, instead of training it again.
    skip_unchanged: bool = True
    #: Who is told of failures, refusals, missed deadlines and stale data; nobody without.
    notify: tuple[NotifierConfig, ...] = Field(())


class PipelineConfig(Section):
    """The whole of `pipeline.yaml`."""

    seed: int = 42
    data: DataConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    features: FeaturesConfig = FeaturesConfig()
    models: ModelsConfig = ModelsConfig()
    gates: GatesConfig = GatesConfig()
    release: ReleaseConfig = ReleaseConfig()
    retention: RetentionConfig = RetentionConfig()
    operations: OperationsConfig = OperationsConfig()

    @property
    def schedule(self) -> Schedule | None:
        """When the daily run starts by itself; None: never."""
        expression = self.operations.schedule
        return None if expression is None else Schedule(expression, self.data.calendar)

    @property
    def max_live_age_days(self) -> int | None:
        """How old the data of what is live may be, in days; None: as old as it gets.

        The run of a day starts on the next one, and what it made live is replaced by the next run.
        """
        if self.operations.max_live_age_days is not None or self.schedule is None:
            return self.operations.max_live_age_days
        return self.schedule.longest_gap_days() + 1

    @model_validator(mode="after")
    def _check_schedule(self) -> PipelineConfig:
        if self.schedule:
            try:
                self.schedule.require_whole_days()
            except ValueError as error:
                raise ValueError(f"operations.schedule: {error}") from error
        return self


def load_pipeline_config(path: Path) -> PipelineConfig:
    """Read and validate `pipeline.yaml`.

    Raises:
        ConfigError: the file is missing, is no YAML, has an unknown key or a wrong value; the
            message gives the file and the path to the key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; FERRY_CONFIG names the file to read"
        ) from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise ConfigError(
            f"{path}:{line} is not YAML: {getattr(error, 'problem', error)}"
        ) from error
    try:
        return PipelineConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        # A rule between sections names its key itself.
        if not key and first["type"] != "value_error":
            key = "(top level)"
        where = f"{path}: {key}" if key else f"{path}"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}: unknown key{more}") from error
        reason = first["msg"].removeprefix("Value error, ")
        # Not a whole section: its content would bury the reason.
        is_shown = first["type"] != "missing" and not isinstance(first["input"], dict)
        got = f", got {first['input']!r}" if is_shown else ""
        raise ConfigError(f"{where}: {reason}{got}{more}") from error
