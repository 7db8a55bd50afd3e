"""The data of a home: what it holds, and bringing in what `make run` has chosen."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from local.credentials import Secrets
from local.data_choice import Choice, Folder, Held, choose, require_run_date
from local.earlier_home import adopt_landing
from local.environment import ferry_environment, process_environment
from local.home import Home, write_private
from local.source_files import FileStates, landed_ns, movielens_files
from local.stack import Say
from pipelines.config import DataConfig
from pipelines.data.identity import (
    LakeSource,
    MovielensFolder,
    Origin,
    require_own_source,
    require_same_source,
)
from pipelines.data.movielens import newest_day
from pipelines.errors import ConfigError, DataError
from pipelines.lake import Lake


class _Landed(BaseModel):
    """The files that were brought into the landing area."""

    model_config = ConfigDict(frozen=True)

    files: FileStates
    #: Time of the landing area's ratings folder; what somebody else brings in has another.
    landed_ns: int | None


def choose_data(
    home: Home,
    config: DataConfig,
    data: Path | None,
    run_date: date | None,
    now: datetime,
    *,
    partial_day: bool = False,
) -> Choice:
    """Return which day to run for and what to bring in before; changes nothing that a run reads.

    Raises:
        ConfigError: the run date has not ended or has no data, or a folder is given that the
            configuration would not read.
        DataError: the folder does not hold a MovieLens data set.
        OtherSourceError: the lake was made from another source.
    """
    calendar = config.calendar
    require_run_date(run_date, calendar, now, partial_day=partial_day)
    lake = Lake(str(home.lake))
    if not config.events.is_landed:
        if data:
            raise ConfigError(
                f"DATA={data} is brought into the lake's landing area, but pipeline.yaml reads "
                f"events from {config.events.path}: leave out one of the two"
            )
        require_own_source(lake, config)
        return Choice(run_date or calendar.last_complete(now), "")
    folder = None if data is None else data.expanduser().absolute()
    files = None if folder is None else movielens_files(folder)
    if adopted := adopt_landing(lake, folder, files):
        _remember(lake, adopted)
    held = _held(lake)
    choice = choose(held, _folder(lake, folder, files), run_date, calendar.last_complete(now))
    made_from = LakeSource.of_lake(lake)
    if made_from and held.is_ingested:
        now_read = LakeSource.configured(config, lake)
        require_same_source(lake, made_from, now_read.model_copy(update={"origin": held.brought}))
    return choice


def bring_in(home: Home, secrets: Secrets, choice: Choice, say: Say) -> None:
    """Have the landing area hold what was chosen.

    Raises:
        DataError: the data could not be brought in; `ferry` has said why. The landing area is then
            as it was.
    """
    if not choice.command:
        say(f"data: {choice.data} (already there)")
        return
    say(f"data: {choice.data}")
    lake = Lake(str(home.lake))
    # As they were before they are read: what is written to them meanwhile is read next time.
    folder = Path(choice.command[2]) if choice.command[1] == "import-movielens" else None
    files = movielens_files(folder) if folder else None
    environment = {**process_environment(), **ferry_environment(home, secrets)}
    done = subprocess.run(
        [sys.executable, "-c", "from pipelines.cli import main; main()", *choice.command],
        env={**environment, "FERRY_HOME": str(home.root)},
        check=False,
    )
    if done.returncode:
        raise DataError("the data could not be brought in: see the line above")
    if files:
        _remember(lake, files)


def _held(lake: Lake) -> Held:
    origin, made_from = Origin.of_landing(lake), LakeSource.of_lake(lake)
    is_ingested = any(Path(lake.ratings).glob("dt=*"))
    brought = origin.brought if origin else made_from.origin if made_from else None
    return Held(
        lake.root,
        brought,
        origin.last_day if origin else None,
        is_ingested,
        is_unknown=brought is None and (is_ingested or landed_ns(lake) is not None),
    )


def _folder(lake: Lake, folder: Path | None, files: FileStates | None) -> Folder | None:
    if folder is None or files is None:
        return None
    origin = Origin.of_landing(lake)
    is_landed = (
        origin is not None
        and isinstance(origin.brought, MovielensFolder)
        and origin.brought.folder == str(folder)
    )
    is_unchanged = is_landed and _remembered(lake) == files
    return Folder(str(folder), is_unchanged, lambda: newest_day(folder))


def _stamp(lake: Lake) -> Path:
    # In the landing area, with which it goes.
    return Path(lake.landing) / "files.json"


def _remember(lake: Lake, files: FileStates) -> None:
    landed = _Landed(files=files, landed_ns=landed_ns(lake))
    write_private(_stamp(lake), landed.model_dump_json(indent=2))


def _remembered(lake: Lake) -> FileStates | None:
    """Return the files that the landing area was made of, if that is known."""
    try:
        landed = _Landed.model_validate_json(_stamp(lake).read_text())
    except FileNotFoundError:
        return None
    return landed.files if landed.landed_ns == landed_ns(lake) else None
