"""Brings a data set into the lake for `make run`, once, and never mixes two of them.

Both ways of bringing data in end on the run date: another date moves every event. Days that the
lake already holds are not read again, so with other data in the landing area the lake has to
begin anew. What we brought in ourselves is removed then; anything else is set aside.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from local.credentials import Secrets
from local.environment import ferry_environment, process_environment
from local.home import Home, write_private
from local.stack import Say
from pipelines.config import EventSource
from pipelines.errors import ConfigError, DataError
from pipelines.lake import Lake

_MOVIELENS_FILES = ("ratings.csv", "movies.csv")


class Source(BaseModel):
    """Where data come from and where they end; equal sources give equal data."""

    model_config = ConfigDict(frozen=True)

    #: A MovieLens folder; None stands for the synthetic data set.
    folder: str | None
    #: Name, size and modification time (ns) of each of its files.
    files: tuple[tuple[str, int, int], ...] = ()
    end_date: date

    @property
    def arguments(self) -> list[str]:
        """The arguments of `ferry` that bring the data in."""
        end = ["--end-date", self.end_date.isoformat()]
        if self.folder is None:
            return ["data", "synth", *end]
        return ["data", "import-movielens", self.folder, *end]

    def __str__(self) -> str:
        name = "synthetic data" if self.folder is None else f"MovieLens from {self.folder}"
        return f"{name}, up to {self.end_date}"


class _Stamp(BaseModel):
    """What we last brought into the landing area."""

    model_config = ConfigDict(frozen=True)

    source: Source
    #: Time of the landing area's ratings folder; another one there has another.
    landed_ns: int | None
    #: Whether the lake was made from this source alone.
    is_whole: bool


def find_source(events: EventSource, folder: Path | None, end_date: date) -> Source | None:
    """Return the source to bring in; None if the configuration reads events from elsewhere.

    Raises:
        ConfigError: a folder is given that the configuration would not read.
        DataError: the folder does not hold a MovieLens data set.
    """
    if "{landing}" not in events.path:
        if folder:
            raise ConfigError(
                f"DATA={folder} is brought into the lake's landing area, but pipeline.yaml reads "
                f"events from {events.path}: leave out one of the two"
            )
        return None
    if folder is None:
        return Source(folder=None, end_date=end_date)
    folder = folder.expanduser().absolute()
    files = []
    for name in _MOVIELENS_FILES:
        file = folder / name
        if not file.is_file():
            raise DataError(
                f"DATA={folder}: there is no file {name} in it; it takes a MovieLens folder with "
                f"{' and '.join(_MOVIELENS_FILES)}"
            )
        found = file.stat()
        files.append((name, found.st_size, found.st_mtime_ns))
    return Source(folder=str(folder), files=tuple(files), end_date=end_date)


def bring_in(home: Home, secrets: Secrets, source: Source, say: Say) -> None:
    """Have the landing area hold `source`, and the lake nothing else.

    Raises:
        DataError: the data could not be brought in; `ferry` has said why. Lake and landing area
            are then as they were.
    """
    stamp_file = home.lake / "source.json"
    stamp = _read(stamp_file)
    lake = Lake(str(home.lake))
    landed = _landed_ns(lake)
    if stamp and stamp.landed_ns == landed:
        if stamp.source == source and stamp.is_whole:
            say(f"data: {source} (already there)")
            return
    elif landed or _tables(lake):
        _set_aside(home, lake, say)
    say(f"data: {source}")
    environment = {**process_environment(), **ferry_environment(home, secrets)}
    done = subprocess.run(
        [sys.executable, "-c", "from pipelines.cli import main; main()", *source.arguments],
        env={**environment, "FERRY_HOME": str(home.root)},
        check=False,
    )
    if done.returncode:
        raise DataError("the data could not be brought in: see the line above")
    # In two steps, so that an interruption between them leaves no mixed lake behind.
    _write(stamp_file, _Stamp(source=source, landed_ns=_landed_ns(lake), is_whole=False))
    _empty(lake, say)
    _write(stamp_file, _Stamp(source=source, landed_ns=_landed_ns(lake), is_whole=True))


def _landed_ns(lake: Lake) -> int | None:
    ratings = Path(lake.landing) / "ratings"
    return ratings.stat().st_mtime_ns if ratings.exists() else None


def _tables(lake: Lake) -> list[Path]:
    folders = (lake.ratings, lake.items, lake.users, lake.quarantine)
    return [Path(folder) for folder in folders if Path(folder).exists()]


def _empty(lake: Lake, say: Say) -> None:
    tables = _tables(lake)
    for folder in tables:
        shutil.rmtree(folder)
    if tables:
        say("data: they differ from those before, so the lake begins anew; releases stay")


def _set_aside(home: Home, lake: Lake, say: Say) -> None:
    target = home.lake / f"set-aside-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    target.mkdir()
    for folder in (Path(lake.landing), *_tables(lake)):
        if folder.exists():
            folder.rename(target / folder.name)
    say(f"data: what the lake held was not brought in by 'make run'; it is now in {target}")


def _read(file: Path) -> _Stamp | None:
    try:
        return _Stamp.model_validate_json(file.read_text())
    except FileNotFoundError:
        return None


def _write(file: Path, stamp: _Stamp) -> None:
    write_private(file, stamp.model_dump_json(indent=2))
