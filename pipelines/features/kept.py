"""What the lake keeps of the features between runs, and when it may be used.

Each computation leaves one folder below ``features/`` in the lake:

* ``samples/<block>/``, ``events/<block>/``: the rows of the days that it computed, as a run has
  them once their day is neither holdout nor validation; a block is one day, or all days that were
  that old already
* ``users/``, ``items/``: the features at the end of its last day, and what they go on from
* ``state.json``: what all this was made from. It is written last, by a rename: a folder without it
  is what an interrupted computation left, and counts for nothing.

Nothing in a folder is changed later. A state goes on with the blocks of the state that it started
from, and names all files that it needs; files that no state needs are deleted by :func:`tidy`. Runs
have hard links to the files, or copies, so they never miss any.

A state may be used if a computation from nothing would give the same: the lake, each of its days,
the settings that enter features and the code that computes them are those it was made with. (That
the catalogue says the same of the items with events, :mod:`pipelines.features.incremental` checks.)
Only the features step of a run may write here, and only while it has the lake to itself.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyspark
from pyarrow import fs
from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.config import PipelineConfig
from pipelines.data.contract import DAY, StoredModel, filesystem_of
from pipelines.errors import DataError
from pipelines.lake import Lake

_STATE = "state.json"
#: Another file system, one without hard links, or too many links.
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True)
class HeldDay:
    """What identifies the content of a day of the lake, and its size in bytes."""

    digest: str
    size: int


class Block(BaseModel):
    """Rows of one or more days, up to `last_day`: a folder of samples, and one of events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: str
    name: str
    last_day: date

    def folder(self, lake: Lake, kind: str) -> str:
        """Return the folder of its ``samples`` or ``events``."""
        return f"{lake.features}/{self.part}/{kind}/{self.name}"


class KeptState(StoredModel):
    """The features at the end of a day; `part` is its own folder.

    `days` are the digests of all days that entered, `files` the sizes of all files that it needs,
    by path below ``features/``.
    """

    part: str
    through: date
    written_at: datetime
    lake_id: str
    settings: dict[str, str]
    days: dict[date, str]
    blocks: tuple[Block, ...]
    files: dict[str, int]

    def folder(self, lake: Lake, kind: str) -> str:
        """Return the folder of its ``users`` or ``items``."""
        return f"{lake.features}/{self.part}/{kind}"


@dataclass(frozen=True)
class LakeNow:
    """What features would be computed from now."""

    lake_id: str
    days: Mapping[date, HeldDay]
    settings: Mapping[str, str]

    def why_not(self, state: KeptState, files: Mapping[str, int]) -> str | None:
        """Return why `state` is of no use any more, with these files below ``features/``."""
        if state.lake_id != self.lake_id:
            return "the lake has begun anew"
        for name, value in self.settings.items():
            if state.settings.get(name) != value:
                return f"{name} has changed"
        now = {day: found.digest for day, found in self.days.items() if day <= state.through}
        for day in sorted(now.keys() | state.days.keys()):
            if now.get(day) != state.days.get(day):
                changed = "new" if day not in state.days else "gone" if day not in now else None
                return f"day {day} is {changed}" if changed else f"day {day} has changed"
        for path, size in state.files.items():
            if files.get(path) != size:
                return f"what was kept up to {state.through} is incomplete: {path}"
        return None

    def since(self, state: KeptState | None, run_date: date) -> list[date]:
        """Return the days up to the run date that come after a state."""
        return sorted(d for d in self.days if d <= run_date and (not state or d > state.through))


def lake_now(lake: Lake, lake_name: str, config: PipelineConfig) -> LakeNow:
    """Look at the days of the lake and the settings."""
    return LakeNow(lake_name, _day_files(lake), settings_of(config))


def settings_of(config: PipelineConfig) -> dict[str, str]:
    """Return everything but data that decides about features: settings, and versions of code."""
    data = config.data
    return {
        "the code of the features": _code_digest(),
        "the version of Spark": pyspark.__version__,
        "data.user_id_type": data.user_id_type,
        "data.item_id_type": data.item_id_type,
        "data.positive_rating": repr(data.positive_rating),
        "data.time_zone": data.time_zone,
        "features.history_length": repr(config.features.history_length),
    }


@functools.cache
def _code_digest() -> str:
    # Of the sources, so that nobody has to think of counting a version up.
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _day_files(lake: Lake) -> dict[date, HeldDay]:
    """Return what identifies each day: its files, which get other names when they are written."""
    found: dict[date, list[Any]] = {}
    prefix = f"{DAY}="
    for relative, info in _listed(lake.ratings):
        folder, *names = relative.split("/")
        if folder.startswith(prefix) and not any(name.startswith((".", "_")) for name in names):
            found.setdefault(date.fromisoformat(folder.removeprefix(prefix)), []).append(info)
    days = {}
    for day, infos in found.items():
        lines = sorted(f"{i.base_name} {i.size} {i.mtime_ns}" for i in infos)
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]
        days[day] = HeldDay(digest, sum(i.size for i in infos))
    return days


def _listed(folder: str) -> Iterable[tuple[str, Any]]:
    """Return all files below a folder, by their path in it."""
    filesystem, path = filesystem_of(folder)
    for info in filesystem.get_file_info(
        fs.FileSelector(path, recursive=True, allow_not_found=True)
    ):
        if info.is_file:
            yield info.path.removeprefix(f"{path}/"), info


def kept_files(lake: Lake) -> dict[str, int]:
    """Return the sizes of all files below ``features/``, by their path in it."""
    return {path: info.size for path, info in _listed(lake.features)}


def load_states(lake: Lake, files: Mapping[str, int]) -> list[KeptState]:
    """Return the states that are there, the latest end first; one that can't be read is none."""
    states = []
    for path in files:
        part, _, name = path.partition("/")
        if name == _STATE:
            try:
                states.append(KeptState.load(f"{lake.features}/{part}/{_STATE}"))
            except ValidationError:
                continue
    return sorted(states, key=lambda s: (s.through, s.written_at), reverse=True)


def new_part(through: date) -> str:
    """Return the name of a new folder."""
    return f"{through}-{uuid.uuid4().hex[:12]}"


def keep(
    lake: Lake,
    now: LakeNow,
    run_date: date,
    part: str,
    blocks: Mapping[str, date],
    base: KeptState | None,
) -> KeptState:
    """Write the state of a folder that is complete; `blocks` are its own, by name.

    Raises:
        DataError: something of it, or of `base`, is gone: somebody else is at work in the lake.
    """
    own = (Block(part=part, name=name, last_day=day) for name, day in blocks.items())
    all_blocks = (*(base.blocks if base else ()), *own)
    folders = [f"{part}/users/", f"{part}/items/"]
    folders += [f"{b.part}/{kind}/{b.name}/" for b in all_blocks for kind in ("samples", "events")]
    there = kept_files(lake)
    files = {path: size for path, size in there.items() if path.startswith(tuple(folders))}
    for folder in folders:
        if not any(path.startswith(folder) for path in files):
            raise DataError(f"{lake.features}/{folder} is gone: another run is at work in the lake")
    state = KeptState(
        part=part,
        through=run_date,
        written_at=datetime.now(UTC),
        lake_id=now.lake_id,
        settings=dict(now.settings),
        days={day: found.digest for day, found in now.days.items() if day <= run_date},
        blocks=all_blocks,
        files=files,
    )
    state.save(f"{lake.features}/{part}/{_STATE}")
    return state


def newest(states: Iterable[KeptState], count: int) -> list[KeptState]:
    """Return the states that were written last."""
    return sorted(states, key=lambda state: state.written_at, reverse=True)[:count]


def tidy(lake: Lake, states: Collection[KeptState], files: Iterable[str]) -> None:
    """Delete all of `files` below ``features/`` that none of `states` needs."""
    needed = {path for state in states for path in state.files}
    needed |= {f"{state.part}/{_STATE}" for state in states}
    filesystem, root = filesystem_of(lake.features)
    # A state goes before what it names.
    for path in sorted(set(files) - needed, key=lambda path: not path.endswith(f"/{_STATE}")):
        filesystem.delete_file(f"{root}/{path}")
    parts = {path.partition("/")[0] for path in needed}
    for part in {path.partition("/")[0] for path in files} - parts:
        filesystem.delete_dir(f"{root}/{part}")


def give(source: str, target: str, prefix: str) -> None:
    """Give a run the Parquet files of a kept folder, as `target`/`prefix`…: linked, else copied.

    Hard links, so that they stay when what is kept is deleted. Files are never changed in place.
    """
    for name, info in _listed(source):
        if not name.endswith(".parquet") or name.startswith((".", "_")):
            continue
        filesystem, folder = filesystem_of(target)
        place = f"{folder}/{prefix}-{name}"
        if isinstance(filesystem, fs.LocalFileSystem):
            try:
                Path(place).hardlink_to(info.path)
                continue
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
        filesystem.copy_file(info.path, place)
