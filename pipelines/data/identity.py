"""Which lake it is: its name, that releases carry, and the source that made it.

Rows of two sources must never mix: ids of one mean nothing in the other, and days that both have
would hold now the one's rows and now the other's. So a lake remembers its source and how it was
read, in ``made_from.json`` at its root, and the landing area remembers what was brought into it, in
``landing/origin.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelines.config import DataConfig, IdType
from pipelines.data.contract import EVENT_COLUMNS, StoredModel, filesystem_of
from pipelines.errors import OtherSourceError
from pipelines.lake import Lake

#: What to do about another source.
WAY_OUT = "'ferry data reset' empties the lake (sealed versions stay), FERRY_LAKE names another one"


class SyntheticWorld(BaseModel):
    """A synthetic data set; its days go on for as long as anybody asks for them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["synthetic"] = "synthetic"
    users: int
    items: int
    #: Over so many days users and items join.
    days: int
    seed: int
    first_day: date

    @property
    def founded_until(self) -> date:
        """The last of the days on which users and items join."""
        return self.first_day + timedelta(days=self.days - 1)

    def __str__(self) -> str:
        return (
            f"synthetic data ({self.users:,} users, {self.items:,} items, seed {self.seed}, "
            f"{self.days} days from {self.first_day})"
        )


class MovielensFolder(BaseModel):
    """A MovieLens folder, all of whose events were moved by a number of days."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["movielens"] = "movielens"
    #: Its absolute path.
    folder: str
    shift_days: int

    def __str__(self) -> str:
        shift = f", shifted by {self.shift_days:+d} days" if self.shift_days else ""
        return f"MovieLens of {self.folder}{shift}"


Brought = Annotated[SyntheticWorld | MovielensFolder, Field(discriminator="kind")]


class Origin(StoredModel):
    """What was brought into the landing area, and the newest day in it."""

    brought: Brought
    last_day: date

    @classmethod
    def of_landing(cls, lake: Lake) -> Origin | None:
        """Return what is in the landing area; None if nothing is known of it."""
        try:
            return cls.load(lake.origin)
        except FileNotFoundError:
            return None


class LakeSource(StoredModel):
    """The source that made a lake, and how it was read."""

    #: As configured, with its placeholders.
    events_path: str
    #: What the landing area held, if the events came from there and that is known.
    origin: Brought | None
    columns: dict[str, str | int]
    timestamp_format: str
    user_id_type: IdType
    item_id_type: IdType
    time_zone: str

    @classmethod
    def configured(cls, config: DataConfig, lake: Lake) -> LakeSource:
        """Return the source that the configuration and the landing area name now."""
        events = config.events
        origin = Origin.of_landing(lake) if events.is_landed else None
        return cls(
            events_path=events.path,
            origin=origin.brought if origin else None,
            columns={name: events.columns.get(name, name) for name in EVENT_COLUMNS},
            timestamp_format=events.timestamp_format,
            user_id_type=config.user_id_type,
            item_id_type=config.item_id_type,
            time_zone=config.time_zone,
        )

    @classmethod
    def of_lake(cls, lake: Lake) -> LakeSource | None:
        """Return the source that made the lake; None if none did, or with an earlier Ferry."""
        try:
            return cls.load(lake.made_from)
        except FileNotFoundError:
            return None

    @property
    def name(self) -> str:
        """The source in words."""
        return str(self.origin) if self.origin else self.events_path

    def is_same_data(self, other: LakeSource) -> bool:
        """Whether both name the same data; what an earlier Ferry landed may be any."""
        if self.events_path != other.events_path:
            return False
        return self.origin == other.origin or None in (self.origin, other.origin)

    def changes(self, other: LakeSource) -> list[str]:
        """Return how `other` is read differently, in a few words each."""
        mine, theirs = self._reading(), other._reading()
        return [
            f"{name} {theirs[name]} (was {mine[name]})"
            for name in mine
            if mine[name] != theirs[name]
        ]

    def _reading(self) -> dict[str, object]:
        """Return all that says how the source is read."""
        names = ("user_id_type", "item_id_type", "time_zone", "timestamp_format")
        columns = {f"column {name}": self.columns.get(name) for name in EVENT_COLUMNS}
        return {name: getattr(self, name) for name in names} | columns

    def is_compatible(self, other: LakeSource) -> bool:
        """Whether rows read as `other` says may stand in one table with those of this one."""
        names = ("user_id_type", "item_id_type", "time_zone")
        return all(getattr(self, name) == getattr(other, name) for name in names)


def require_same_source(lake: Lake, made_from: LakeSource, now: LakeSource) -> None:
    """Refuse a source that did not make the lake.

    Raises:
        OtherSourceError: names both, and what to do.
    """
    changes = made_from.changes(now)
    if made_from.is_same_data(now) and not changes:
        return
    if made_from.is_same_data(now):
        what = f"is now read otherwise: {'; '.join(changes)}"
    else:
        what = f"{now.name} is another source"
    is_elsewhere = made_from.is_compatible(now)
    raise OtherSourceError(
        f"the lake {lake.root} was made from {made_from.name}, and {what}. Their rows must not "
        f"mix: {WAY_OUT}"
        + (
            ", and 'ferry data adopt' goes on with it if it is the same data under another name"
            if is_elsewhere
            else ""
        )
    )


def require_own_source(lake: Lake, config: DataConfig) -> None:
    """Refuse to read into a lake what it was not made from, where that is known.

    Raises:
        OtherSourceError: names both, and what to do.
    """
    made_from = LakeSource.of_lake(lake)
    if made_from:
        require_same_source(lake, made_from, LakeSource.configured(config, lake))


def require_room_for(lake: Lake, brought: SyntheticWorld | MovielensFolder) -> None:
    """Refuse to bring into the landing area what the lake was not made from.

    Raises:
        OtherSourceError: names both, and what to do.
    """
    made_from = LakeSource.of_lake(lake)
    if made_from and made_from.origin:
        require_same_source(lake, made_from, made_from.model_copy(update={"origin": brought}))


def current_lake_id(lake: Lake) -> str | None:
    """Return the name of the lake (:func:`pipelines.data.days.lake_id`); None without any data."""
    filesystem, path = filesystem_of(f"{lake.ratings}/_lake_id")
    try:
        with filesystem.open_input_stream(path) as stream:
            return str(stream.read().decode().strip()) or None
    except FileNotFoundError:
        return None


def reset(lake: Lake) -> Sequence[str]:
    """Remove what the lake holds of its source, landing area included; returns what was there.

    Sealed versions are in object storage and stay; so does what is live.
    """
    removed = []
    # The lake's own memory last: interrupted before, it still refuses another source.
    for path in (*lake.contents, lake.made_from):
        filesystem, target = filesystem_of(path)
        (found,) = filesystem.get_file_info([target])
        if found.type.name == "Directory":
            filesystem.delete_dir(target)
        elif found.type.name == "File":
            filesystem.delete_file(target)
        else:
            continue
        removed.append(path)
    return removed
