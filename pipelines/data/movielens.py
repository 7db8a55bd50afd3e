"""Import of a MovieLens folder (https://grouplens.org/datasets/movielens/) into the landing area.

The files are only rearranged, line by line and in constant memory: a row that can't be read goes
through as it is, for ingest to quarantine with its reason.
"""

from __future__ import annotations

import csv
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TextIO

from pipelines.data.contract import EARLIEST, LATEST
from pipelines.data.identity import MovielensFolder, Origin, require_room_for
from pipelines.errors import DataError
from pipelines.lake import Lake
from pipelines.progress import Advance, progress

RATING_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
ITEM_COLUMNS = ("item_id", "title", "genres", "release_year")

_SOURCE_RATINGS = ("userId", "movieId", "rating", "timestamp")
_SOURCE_MOVIES = ("movieId", "title", "genres")
_NO_GENRES = "(no genres listed)"
#: "(1995)", "(2006–2007)" or "(2007-)" at the end of a title.
_YEAR = re.compile(r"\((\d{4})(?:\s*[-–—]\s*(?:\d{4})?)?\s*\)\s*$")
_SECONDS_PER_DAY = 86_400
_LINES_PER_STEP = 100_000


@dataclass(frozen=True)
class ImportResult:
    """What was imported; days are UTC, after the shift."""

    ratings: int
    items: int
    first_day: date
    last_day: date
    shifted_days: int
    landing: Path

    def __str__(self) -> str:
        shift = f", shifted by {self.shifted_days:+d} days" if self.shifted_days else ""
        return (
            f"{self.ratings:,} ratings and {self.items:,} items in {self.landing}: "
            f"{self.first_day} to {self.last_day}{shift}"
        )


def import_movielens(source: Path, lake: Lake, end_date: date | None) -> ImportResult:
    """Bring ``ratings.csv`` and ``movies.csv`` of `source` into the landing area.

    With `end_date` every timestamp moves by the same number of whole days, so that the newest
    event falls on that day; times of day stay. What the landing area held before is replaced
    when all is written.

    Raises:
        DataError: the folder or a file is missing or empty, a column is missing, or no rating
            can be read.
        OtherSourceError: the lake was made from another source.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; it should hold ratings.csv and movies.csv")
    ratings, movies = (
        _Table(source / "ratings.csv", _SOURCE_RATINGS),
        _Table(source / "movies.csv", _SOURCE_MOVIES),
    )
    first, last = _time_range(ratings)
    shift = (end_date - last).days if end_date else 0
    brought = MovielensFolder(folder=str(source.absolute()), shift_days=shift)
    require_room_for(lake, brought)
    landing = Path(lake.landing)
    with new_landing(
        lake, Origin(brought=brought, last_day=last + timedelta(days=shift))
    ) as folder:
        rating_count = _write_ratings(ratings, folder / "ratings" / "ratings.csv", shift)
        item_count = _write_items(movies, folder / "items" / "items.csv")
    moved = timedelta(days=shift)
    return ImportResult(rating_count, item_count, first + moved, last + moved, shift, landing)


def newest_day(source: Path) -> date:
    """Return the UTC day of the newest rating in ``ratings.csv`` of `source`, as it stands there.

    Raises:
        DataError: the file is missing or empty, a column is missing, or no rating can be read.
    """
    _, last = _time_range(_Table(source / "ratings.csv", _SOURCE_RATINGS))
    return last


@contextmanager
def new_landing(lake: Lake, origin: Origin) -> Iterator[Path]:
    """Give an empty folder with ``ratings/`` and ``items/``; then put both in place at once.

    If the block fails, the landing area stays as it was.
    """
    landing = Path(lake.landing)
    landing.mkdir(parents=True, exist_ok=True)
    beside = landing / f".new-{uuid.uuid4().hex}"
    try:
        for name in ("ratings", "items"):
            (beside / name).mkdir(parents=True)
        yield beside
        # Interrupted between the two, nothing says that it is the one or the other.
        Path(lake.origin).unlink(missing_ok=True)
        for name in ("ratings", "items"):
            if (landing / name).exists():
                (landing / name).rename(beside / f"old-{name}")
            (beside / name).rename(landing / name)
        origin.save(lake.origin)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


class _Table:
    """A CSV file whose columns are found by name, whatever their order and case."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        # Bytes that are no UTF-8 go through unharmed.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            line = file.readline()
        if not line.strip():
            raise DataError(f"{path}: the file is empty")
        header = [name.strip() for name in _split(line)]
        folded = [name.casefold() for name in header]
        for name in columns:
            if name.casefold() not in folded:
                raise DataError(f"{path}: no column {name}; the header is: {', '.join(header)}")
        self.width = len(header)
        self._positions = [folded.index(name.casefold()) for name in columns]

    def rows(self, advance: Advance | None = None) -> Iterator[tuple[str, list[str]]]:
        """Yield each line and its fields in the wanted order; no fields if the line is malformed.

        Read line by line: an unclosed quote spoils its own line and no others.
        """
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            file.readline()
            for number, line in enumerate(file, start=1):
                text = line.rstrip("\r\n")
                if not text.strip():
                    continue
                fields = _split(text)
                is_whole = len(fields) == self.width
                yield text, [fields[i] for i in self._positions] if is_whole else []
                if advance and number % _LINES_PER_STEP == 0:
                    advance(_LINES_PER_STEP)


def _split(line: str) -> list[str]:
    if '"' not in line:
        return line.rstrip("\r\n").split(",")
    return next(csv.reader([line]))


def _time_range(ratings: _Table) -> tuple[date, date]:
    """Return the first and last UTC day of the rows that ingest can accept."""
    earliest, latest = int(EARLIEST.timestamp()), int(LATEST.timestamp())
    first, last = latest, earliest - 1
    with progress("import: reading the time range", unit="ratings") as advance:
        for _, fields in ratings.rows(advance):
            try:
                int(fields[0]), int(fields[1]), float(fields[2])
                timestamp = int(fields[3])
            except (ValueError, IndexError):
                continue
            if earliest <= timestamp < latest:
                first, last = min(first, timestamp), max(last, timestamp)
    if last < first:
        raise DataError(f"{ratings.path}: no rating that can be read")
    return datetime.fromtimestamp(first, UTC).date(), datetime.fromtimestamp(last, UTC).date()


def _write_ratings(ratings: _Table, target: Path, shift_days: int) -> int:
    shift = shift_days * _SECONDS_PER_DAY
    count = 0
    with progress("import: writing", unit="ratings") as advance, _create(target) as file:
        file.write(",".join(RATING_COLUMNS) + "\n")
        for line, fields in ratings.rows(advance):
            count += 1
            if not fields:
                file.write(_malformed(line, len(RATING_COLUMNS)))
                continue
            if shift:
                fields[3] = _shifted(fields[3], shift)
            file.write(_join(fields))
    return count


def _write_items(movies: _Table, target: Path) -> int:
    count = 0
    with _create(target) as file:
        file.write(",".join(ITEM_COLUMNS) + "\n")
        for line, fields in movies.rows():
            count += 1
            if not fields:
                file.write(_malformed(line, len(ITEM_COLUMNS)))
                continue
            movie_id, title, genres = fields
            year = _YEAR.search(title)
            no_genres = genres.strip() == _NO_GENRES
            file.write(
                _join([movie_id, title, "" if no_genres else genres, year[1] if year else ""])
            )
    if not count:
        raise DataError(f"{movies.path}: no movie in it")
    return count


def _create(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")


def _shifted(timestamp: str, shift: int) -> str:
    try:
        return str(int(timestamp) + shift)
    except ValueError:
        return timestamp


def _malformed(line: str, width: int) -> str:
    """Return the line as it is, unless it would pass for a whole row of ours."""
    return f"{line},\n" if len(_split(line)) == width else f"{line}\n"


def _join(fields: Sequence[str]) -> str:
    return (
        ",".join(
            '"' + field.replace('"', '""') + '"' if any(c in field for c in ',"\r\n') else field
            for field in fields
        )
        + "\n"
    )
