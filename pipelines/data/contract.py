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


class _Summary(BaseModel):
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


class IngestSummary(_Summary):
    """Row counts of one ingest; ``input_rows = accepted + quarantined + exact_duplicates``.

    The input are the rows of the days that were written, and rows without a readable timestamp.
    A source with the whole history also has rows of days that the lake holds already
    (`earlier_rows`) and rows dated after the run date (`later_rows`); both were left alone.
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

    @property
    def quarantined_rows(self) -> int:
        """All quarantined rows."""
        return sum(self.quarantined.values())


class DataSummary(_Summary):
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
