"""What the lake remembers of each day: when it was read, from which files, whether it was whole.

The records lie in ``ratings/_days.json``. They say which days have to be read again: those that
were read before they were complete, and those whose source has changed since. A day that an
earlier Ferry wrote has no record: when it was read is taken from the time of its files then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict

from pipelines.data.contract import DAY, StoredModel
from pipelines.data.files import FileStatus, SparkFiles
from pipelines.day_calendar import DayCalendar


class SourceFile(BaseModel):
    """A file of the source as it was when it was read; `path` without the scheme of local files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int
    modified: datetime

    @classmethod
    def of(cls, status: FileStatus) -> SourceFile:
        """Return a file as its file system lists it."""
        return cls(path=plain_path(status.path), size=status.size, modified=status.modified)


def plain_path(path: str) -> str:
    """Return a path of Hadoop's or a URL of Spark's in one form."""
    return re.sub(r"^file:/+", "/", path)


def path_of_url(url: str) -> str:
    """Return the path that Spark's URL of a file stands for."""
    return plain_path(unquote(url))


class LeftOut(BaseModel):
    """Rows that came too late for a day (`data.late_days`), and are not in the lake."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    #: What the source looked like when they were counted.
    seen: str


class DayRecord(BaseModel):
    """How a day was read last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    read_at: datetime
    #: Whether the day counted as complete when it was read.
    complete: bool
    #: Of all the source's rows of the day, in a source with the whole history; None: not known.
    digest: str | None = None
    files: frozenset[SourceFile] = frozenset()
    left_out: LeftOut | None = None

    @property
    def rows(self) -> int | None:
        """How many rows the source had of the day; None: not known."""
        return int(self.digest.partition("-")[0]) if self.digest else None

    def has_read(self, files: Iterable[SourceFile]) -> bool:
        """Whether these files, as they are, have been read; of an earlier Ferry's day, by time."""
        if not self.files:
            return all(file.modified <= self.read_at for file in files)
        return set(files) <= self.files


class _StoredRecord(BaseModel):
    """As a record is stored: files by their place in the table of all files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    read_at: datetime
    complete: bool
    digest: str | None = None
    files: tuple[int, ...] = ()
    left_out: LeftOut | None = None


class _StoredRecords(StoredModel):
    files: tuple[SourceFile, ...]
    days: dict[date, _StoredRecord]


def load_records(table: str) -> dict[date, DayRecord]:
    """Return the records of the days of `table`; none where an earlier Ferry wrote it."""
    try:
        stored = _StoredRecords.load(_path(table))
    except FileNotFoundError:
        return {}
    return {
        day: DayRecord(
            read_at=record.read_at,
            complete=record.complete,
            digest=record.digest,
            files=frozenset(stored.files[i] for i in record.files),
            left_out=record.left_out,
        )
        for day, record in stored.days.items()
    }


def save_records(table: str, records: Mapping[date, DayRecord]) -> None:
    """Replace the records of `table`."""
    order = lambda file: (file.path, file.size, file.modified)  # noqa: E731
    files = sorted({file for record in records.values() for file in record.files}, key=order)
    place = {file: i for i, file in enumerate(files)}
    days = {
        day: _StoredRecord(
            read_at=record.read_at,
            complete=record.complete,
            digest=record.digest,
            files=tuple(sorted(place[file] for file in record.files)),
            left_out=record.left_out,
        )
        for day, record in sorted(records.items())
    }
    _StoredRecords(files=tuple(files), days=days).save(_path(table))


def inferred_records(files: SparkFiles, table: str, calendar: DayCalendar) -> dict[date, DayRecord]:
    """Return a record for each partition of `table`, by the time at which it was written."""
    prefix = f"{DAY}="
    found = {}
    for status in files.list_folder(table):
        name = status.path.rpartition("/")[2]
        if name.startswith(prefix):
            day = date.fromisoformat(name.removeprefix(prefix))
            whole = calendar.is_complete(day, status.modified)
            found[day] = DayRecord(read_at=status.modified, complete=whole)
    return found


def _path(table: str) -> str:
    return f"{table}/_days.json"
