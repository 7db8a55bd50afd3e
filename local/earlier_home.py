"""Homes of an earlier Ferry, which noted in ``lake/source.json`` what `make run` brought in."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from local.source_files import FileStates, landed_ns
from pipelines.data.identity import Brought, MovielensFolder, Origin, SyntheticWorld
from pipelines.data.movielens import newest_day
from pipelines.errors import OtherSourceError
from pipelines.lake import Lake

#: What `ferry data synth` generated without options of its own.
_SYNTHETIC = {"users": 2000, "items": 1500, "days": 60, "seed": 42}


class _Source(BaseModel):
    model_config = ConfigDict(frozen=True)

    #: A MovieLens folder; None stands for the synthetic data set.
    folder: str | None
    files: FileStates = ()
    end_date: date


class _Stamp(BaseModel):
    model_config = ConfigDict(frozen=True)

    source: _Source
    landed_ns: int | None
    #: Whether the lake was made from this source alone.
    is_whole: bool


def adopt_landing(lake: Lake, folder: Path | None, files: FileStates | None) -> FileStates | None:
    """Write down where the landing area is from as it is done now, if an earlier Ferry filled it.

    Returns the state of the files that a MovieLens folder had then. `folder` and `files` are those
    that are to be brought in now.

    Raises:
        OtherSourceError: it was filled from another source, or from a folder that has changed
            since, whose events can't be told from others any more.
    """
    stamp_file = Path(lake.root) / "source.json"
    if Origin.of_landing(lake) or not stamp_file.exists():
        return None
    stamp = _Stamp.model_validate_json(stamp_file.read_text())
    landed = landed_ns(lake)
    if landed is None or landed != stamp.landed_ns or not stamp.is_whole:
        return None
    source = stamp.source
    brought: Brought
    if source.folder is None:
        first_day = source.end_date - timedelta(days=_SYNTHETIC["days"] - 1)
        brought = SyntheticWorld(**_SYNTHETIC, first_day=first_day)
    elif folder is not None and str(folder) == source.folder and files == source.files:
        shift = source.end_date - newest_day(folder)
        brought = MovielensFolder(folder=source.folder, shift_days=shift.days)
    else:
        is_same = folder is not None and str(folder) == source.folder
        what = (
            "its files have changed since"
            if is_same
            else f"{'synthetic data' if folder is None else folder} is another source"
        )
        raise OtherSourceError(
            f"the lake {lake.root} was made from MovieLens of {source.folder}, and {what}. Their "
            "rows must not mix: 'ferry data reset' empties the lake (sealed versions stay), "
            "'make run FERRY_HOME=DIR' takes another one"
        )
    Origin(brought=brought, last_day=source.end_date).save(lake.origin)
    return source.files or None
