"""The data contract: what the lake holds, why a row is quarantined, and what a run says of it.

Accepted events lie in ``ratings/dt=YYYY-MM-DD/`` with the columns of :func:`event_schema` and the
partition column ``dt`` (the UTC day of ``timestamp``); rows that break the contract lie beside
them in ``quarantine/dt=YYYY-MM-DD/`` with :func:`quarantine_schema`.
"""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from pipelines.config import DataConfig, IdType

if TYPE_CHECKING:
    from pyspark.sql.types import DataType, StructType

#: Partition column of the lake: the UTC day.
DAY = "dt"

#: What makes an event.
EVENT_COLUMNS = ("user_id", "item_id", "rating", "timestamp")

#: A readable timestamp outside of [EARLIEST, LATEST) is taken for an error: zero for "unset", or
#: milliseconds where seconds are expected (January 1970) and the other way round (year 50000).
EARLIEST = datetime(1971, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)


class Reason(StrEnum):
    """Why a row is quarantined; the first that applies, in this order."""

    MALFORMED_ROW = "malformed_row"
    USER_ID_MISSING = "user_id_missing"
    USER_ID_INVALID = "user_id_invalid"
    ITEM_ID_MISSING = "item_id_missing"
    ITEM_ID_INVALID = "item_id_invalid"
    RATING_MISSING = "rating_missing"
    RATING_INVALID = "rating_invalid"
    RATING_NOT_FINITE = "rating_not_finite"
    RATING_OUT_OF_RANGE = "rating_out_of_range"
    TIMESTAMP_MISSING = "timestamp_missing"
    TIMESTAMP_INVALID = "timestamp_invalid"
    TIMESTAMP_OUT_OF_RANGE = "timestamp_out_of_range"
    OUTSIDE_DAY = "outside_day"
    TOO_LATE = "too_late"


def id_type(kind: IdType) -> DataType:
    """Return the Spark type of an id column."""
    from pyspark.sql.types import LongType, StringType

    return LongType() if kind == "int64" else StringType()


def event_schema(config: DataConfig) -> StructType:
    """Return the schema of an accepted event, without the partition column."""
    from pyspark.sql.types import DoubleType, StructType, TimestampType

    return (
        StructType()
        .add("user_id", id_type(config.user_id_type))
        .add("item_id", id_type(config.item_id_type))
        .add("rating", DoubleType())
        .add("timestamp", TimestampType())
    )


def item_schema(config: DataConfig) -> StructType:
    """Return the schema of the catalogue; only ``item_id`` is never null."""
    from pyspark.sql.types import ArrayType, IntegerType, StringType, StructType

    return (
        StructType()
        .add("item_id", id_type(config.item_id_type))
        .add("title", StringType())
        .add("genres", ArrayType(StringType()))
        .add("release_year", IntegerType())
    )


def quarantine_schema() -> StructType:
    """Return the schema of a quarantined row, without the partition column.

    ``reason`` is a :class:`Reason`, ``detail`` says what was wrong with which value, ``raw`` is
    the row as text: verbatim where it could not be split into columns, else written anew in the
    source's own format.
    """
    from pyspark.sql.types import StringType, StructType

    return (
        StructType()
        .add("reason", StringType())
        .add("detail", StringType())
        .add("raw", StringType())
    )


class StoredModel(BaseModel):
    """What is kept as one JSON file, wherever pyarrow can write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def save(self, path: str) -> None:
        """Write as JSON to `path`; a reader sees the old file or the whole new one."""
        from pyarrow import fs

        # An upload to object storage appears whole or not at all; a local file needs a rename.
        filesystem, target = filesystem_of(path)
        is_local = isinstance(filesystem, fs.LocalFileSystem)
        place = f"{target}.{uuid.uuid4().hex}" if is_local else target
        if is_local:
            filesystem.create_dir(target.rpartition("/")[0])
        with filesystem.open_output_stream(place) as stream:
            stream.write(self.model_dump_json(indent=2).encode())
        if is_local:
            filesystem.move(place, target)

    @classmethod
    def load(cls, path: str) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
        """
        filesystem, target = filesystem_of(path)
        with filesystem.open_input_stream(target) as stream:
            return cls.model_validate_json(stream.read())


def filesystem_of(path: str) -> tuple[Any, str]:
    """Return the pyarrow file system of a path or URL, and the path within it."""
    from pyarrow import fs

    if "://" not in path:
        return fs.LocalFileSystem(), path
    # Hadoop says s3a where everyone else says s3.
    filesystem, target = fs.FileSystem.from_uri(path.replace("s3a://", "s3://", 1))
    return filesystem, target


class DayChange(BaseModel):
    """What reading a day again changed in the lake: rows that are new, other, or gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    added: int
    replaced: int
    removed: int

    @classmethod
    def of(cls, new: int, gone: int) -> DayChange:
        """Return the change by which `new` rows came and `gone` rows went."""
        replaced = min(new, gone)
        return cls(added=new - replaced, replaced=replaced, removed=gone - replaced)

    @property
    def rows(self) -> int:
        """How many rows it concerns; 0: nothing changed."""
        return self.added + self.replaced + self.removed

    def __str__(self) -> str:
        parts = {"added": self.added, "replaced": self.replaced, "removed": self.removed}
        said = [f"{count:,} {name}" for name, count in parts.items() if count]
        return ", ".join(said) or "nothing changed"


class IngestSummary(StoredModel):
    """Row counts of one ingest; ``input_rows = accepted + quarantined + exact_duplicates``.

    The input are the rows of the days that were written, and rows without a readable timestamp.
    A source with the whole history also has rows of days that the lake holds already, as they are
    in it (`earlier_rows`), and rows dated after the run date (`later_rows`); both were left alone.
    Summaries of earlier Ferrys have none of the fields with a default.
    """

    run_date: date
    events_path: str
    items_path: str
    input_rows: int
    accepted: int
    accepted_on_run_date: int
    quarantined: dict[Reason, int]
    exact_duplicates: int
    earlier_rows: int
    later_rows: int
    days_written: int
    unknown_items: int
    items: int
    repeated_items: int
    rejected_items: int
    users: int | None
    #: Whether the run date was complete when it was read.
    complete: bool = True
    #: Days before the run date that the lake held and that were read again, and what that changed.
    changed_days: dict[date, DayChange] = {}
    #: By day, rows that came later than `data.late_days`; they are not in the lake.
    too_late_rows: dict[date, int] = {}
    #: Days before the run date that could not be read (again), and why.
    unreadable_days: dict[date, str] = {}
    #: Days up to the run date that the lake holds and that were read before they were complete.
    incomplete_days: list[date] = []

    @property
    def quarantined_rows(self) -> int:
        """All quarantined rows."""
        return sum(self.quarantined.values())

    def describe_days(self) -> list[str]:
        """Return what somebody should know of the days, a line each."""
        lines = [] if self.complete else [f"{self.run_date} had not ended: it is read again later"]
        lines += [f"{day} read again: {change}" for day, change in self.changed_days.items()]
        lines += [f"{day} not read again: {why}" for day, why in self.unreadable_days.items()]
        lines += [
            f"{day}: {rows:,} rows came too late (data.late_days) and are left out: "
            f"'ferry data reread --from {day} --to {day}' takes them in"
            for day, rows in self.too_late_rows.items()
        ]
        return lines


class DataSummary(StoredModel):
    """What one run's models are trained and evaluated on.

    `items` counts those with events. `set_aside_rows` are neither trained on nor evaluated
    (:mod:`pipelines.evaluation.holdout`). Exactly one of `holdout_days` and `holdout_fraction`
    is given. `lake_id` names the lake (:func:`pipelines.data.days.lake_id`); summaries of
    earlier Ferrys have none.
    """

    run_date: date
    lake_id: str | None = None
    rows: int
    users: int
    items: int
    catalogue_items: int
    first_day: date
    last_day: date
    positives: int
    holdout: Literal["last_days", "last_fraction"]
    holdout_days: int | None
    holdout_fraction: float | None
    holdout_rows: int
    holdout_users: int
    set_aside_rows: int
