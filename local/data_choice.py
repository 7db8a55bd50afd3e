"""Which data `make run` brings in, and which day it runs for: pure rules.

A home holds one data set. Another one is refused instead of mixed with it or put in its place, and
what is there goes on: a synthetic data set gets new days, a MovieLens folder keeps the number of
days by which its events were moved, whatever is added to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pipelines.data.identity import Brought, MovielensFolder, SyntheticWorld
from pipelines.day_calendar import DayCalendar
from pipelines.errors import ConfigError, OtherSourceError
from pipelines.run import require_complete

_WAY_OUT = (
    "'ferry data reset' empties the lake (sealed versions stay), 'make run FERRY_HOME=DIR' takes "
    "another one"
)


@dataclass(frozen=True)
class Held:
    """The data that a home holds."""

    #: The lake's root.
    root: str
    #: None: nothing is known, because there is nothing or because nobody wrote it down.
    brought: Brought | None = None
    #: The newest day in the landing area; None: the landing area is empty.
    last_day: date | None = None
    #: Whether the lake has days already.
    is_ingested: bool = False
    #: Whether there are data of which nothing is known.
    is_unknown: bool = False


@dataclass(frozen=True)
class Folder:
    """The MovieLens folder that `DATA` names."""

    #: Absolute.
    path: str
    #: Whether its files are those that were brought in last.
    is_unchanged: bool
    #: Finds the day of the newest event (reads all of them).
    newest_day: Callable[[], date]


@dataclass(frozen=True)
class Choice:
    """The day to run for, and what comes before."""

    run_date: date
    #: The data in words; empty if they come from a source of the user's own.
    data: str
    #: Arguments of `ferry` that bring the data in; empty if they are there.
    command: tuple[str, ...] = ()


def require_run_date(
    run_date: date | None, calendar: DayCalendar, now: datetime, *, partial_day: bool
) -> None:
    """Refuse a run date that has not ended, unless the part of it that has passed is asked for.

    Raises:
        ConfigError: it has not ended or not begun, or a part is asked for but no day is named.
    """
    if run_date is None:
        if partial_day:
            raise ConfigError(
                "PARTIAL_DAY=1 needs a RUN_DATE: without one the last complete day is built"
            )
        return
    has_begun = calendar.start_of(run_date) <= now
    if has_begun and not partial_day and not calendar.is_complete(run_date, now):
        raise ConfigError(
            f"RUN_DATE={run_date} has not ended: it is complete at "
            f"{calendar.complete_at(run_date):%Y-%m-%d %H:%M} UTC. The last complete day is "
            f"{calendar.last_complete(now)}; PARTIAL_DAY=1 builds from the part of the day that "
            "has passed"
        )
    require_complete(run_date, calendar, now, partial_day=partial_day)


def choose(held: Held, folder: Folder | None, run_date: date | None, last_complete: date) -> Choice:
    """Return what to do for `run_date`, or for the newest day there is; `folder` None: synthetic.

    Raises:
        OtherSourceError: the home holds another data set, or the run date would make it another.
        ConfigError: the run date lies before the data set's first day.
    """
    if held.is_unknown:
        raise OtherSourceError(
            f"the lake {held.root} holds data of unknown origin: bring the same data in again with "
            f"'ferry data synth' or 'ferry data import-movielens', or begin anew: {_WAY_OUT}"
        )
    match held.brought, folder:
        case SyntheticWorld() as world, None:
            return _go_on(held, world, run_date or last_complete)
        case MovielensFolder() as landed, Folder() if landed.folder == folder.path:
            return _go_on_with_folder(held, landed, folder, run_date, last_complete)
        case _ if held.brought and held.is_ingested:
            raise OtherSourceError(
                f"the lake {held.root} was made from {held.brought}, and {_name(folder)} is "
                f"another source. Their rows must not mix: {_to_go_on(held.brought)}, {_WAY_OUT}"
            )
    return _begin(folder, run_date or last_complete)


def _begin(folder: Folder | None, run_date: date) -> Choice:
    """Bring in data that end on the run date."""
    source = ("synth",) if folder is None else ("import-movielens", folder.path)
    return Choice(
        run_date,
        f"{_name(folder)}, up to {run_date}",
        ("data", *source, "--end-date", run_date.isoformat()),
    )


def _go_on(held: Held, world: SyntheticWorld, run_date: date) -> Choice:
    """Run for a day of the world; what is new of it, ingest adds by itself."""
    if run_date < world.first_day:
        raise ConfigError(
            f"RUN_DATE={run_date}: the synthetic data in {held.root} begin on {world.first_day}: "
            f"choose a later day, or begin anew: {_WAY_OUT}"
        )
    if held.last_day is not None:
        return Choice(run_date, str(world))
    sizes = {"users": world.users, "items": world.items, "days": world.days, "seed": world.seed}
    options = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    end = world.founded_until.isoformat()
    return Choice(run_date, str(world), ("data", "synth", *options, "--end-date", end))


def _go_on_with_folder(
    held: Held,
    landed: MovielensFolder,
    folder: Folder,
    run_date: date | None,
    last_complete: date,
) -> Choice:
    """Run for a day of the folder; files that changed are brought in again, moved as before."""
    command: tuple[str, ...] = ()
    last_day = held.last_day
    if last_day is None or not folder.is_unchanged:
        last_day = folder.newest_day() + timedelta(days=landed.shift_days)
        end = last_day.isoformat()
        command = ("data", "import-movielens", folder.path, "--end-date", end)
    if run_date is not None and run_date > last_day:
        if not held.is_ingested:
            return _begin(folder, run_date)
        raise OtherSourceError(
            f"RUN_DATE={run_date} would move every event of {folder.path} by "
            f"{(run_date - last_day).days} days, which makes it another data set: the newest event "
            f"in {held.root} is of {last_day}. Leave RUN_DATE out, or begin anew: {_WAY_OUT}"
        )
    return Choice(run_date or min(last_day, last_complete), f"{landed}, up to {last_day}", command)


def _name(folder: Folder | None) -> str:
    return "synthetic data" if folder is None else f"MovieLens of {folder.path}"


def _to_go_on(brought: Brought) -> str:
    if isinstance(brought, MovielensFolder):
        return f"'make run DATA={brought.folder}' goes on with the first"
    return "'make run' without DATA goes on with the first"
