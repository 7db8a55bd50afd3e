"""Which data `make run` brings in and which day it runs for: rules alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.data_choice import Folder, Held, choose, require_run_date
from pipelines.data.identity import MovielensFolder, SyntheticWorld
from pipelines.day_calendar import DayCalendar
from pipelines.errors import ConfigError, OtherSourceError

YESTERDAY = date(2026, 3, 9)
BEFORE = date(2026, 3, 1)
WORLD = SyntheticWorld(users=20, items=10, days=5, seed=1, first_day=date(2026, 2, 25))
MOVED = MovielensFolder(folder="/ml", shift_days=100)
#: As it stands in the folder: 100 days before the last day that is landed.
NEWEST = BEFORE - timedelta(days=100)

NOTHING = Held("/lake")
DEMO = Held("/lake", WORLD, BEFORE, is_ingested=True)
MOVIELENS = Held("/lake", MOVED, BEFORE, is_ingested=True)


def folder(path: str = "/ml", *, changed: bool = False, newest: date = NEWEST) -> Folder:
    return Folder(path, not changed, lambda: newest)


GROWN = folder(changed=True, newest=NEWEST + timedelta(days=3))


def never() -> date:
    raise AssertionError("all events were read for nothing")


@pytest.mark.parametrize(
    ("held", "wanted", "run_date", "expected", "command"),
    [
        (NOTHING, None, None, YESTERDAY, "data synth --end-date 2026-03-09"),
        (NOTHING, None, BEFORE, BEFORE, "data synth --end-date 2026-03-01"),
        (NOTHING, folder(), None, YESTERDAY, "data import-movielens /ml --end-date 2026-03-09"),
        (NOTHING, folder(), BEFORE, BEFORE, "data import-movielens /ml --end-date 2026-03-01"),
        # The same again: nothing to bring in, a synthetic data set grows by itself.
        (DEMO, None, None, YESTERDAY, ""),
        (DEMO, None, BEFORE, BEFORE, ""),
        (DEMO, None, WORLD.first_day, WORLD.first_day, ""),
        (MOVIELENS, folder(), None, BEFORE, ""),
        (MOVIELENS, folder(), date(2026, 2, 1), date(2026, 2, 1), ""),
        # More events in the folder: moved by as many days as those before.
        (
            MOVIELENS,
            GROWN,
            None,
            date(2026, 3, 4),
            "data import-movielens /ml --end-date 2026-03-04",
        ),
        (MOVIELENS, GROWN, BEFORE, BEFORE, "data import-movielens /ml --end-date 2026-03-04"),
        # Its newest day has not ended.
        (replace(MOVIELENS, last_day=date(2026, 3, 10)), folder(), None, YESTERDAY, ""),
        # The landing area has been emptied, the lake is still made of it.
        (
            replace(MOVIELENS, last_day=None),
            folder(),
            None,
            BEFORE,
            "data import-movielens /ml --end-date 2026-03-01",
        ),
        (
            replace(DEMO, last_day=None),
            None,
            None,
            YESTERDAY,
            "data synth --users 20 --items 10 --days 5 --seed 1 --end-date 2026-03-01",
        ),
        # What is only landed gives way.
        (
            replace(DEMO, is_ingested=False),
            folder(),
            None,
            YESTERDAY,
            "data import-movielens /ml --end-date 2026-03-09",
        ),
        (
            replace(MOVIELENS, is_ingested=False),
            None,
            None,
            YESTERDAY,
            "data synth --end-date 2026-03-09",
        ),
        (
            replace(MOVIELENS, is_ingested=False),
            folder(),
            YESTERDAY,
            YESTERDAY,
            "data import-movielens /ml --end-date 2026-03-09",
        ),
        (replace(MOVIELENS, is_ingested=False), folder(), None, BEFORE, ""),
    ],
)
def test_what_is_brought_in_and_for_which_day(
    held: Held, wanted: Folder | None, run_date: date | None, expected: date, command: str
) -> None:
    choice = choose(held, wanted, run_date, YESTERDAY)
    assert (choice.run_date, " ".join(choice.command)) == (expected, command)


@pytest.mark.parametrize(
    ("held", "wanted", "run_date", "parts"),
    [
        (
            DEMO,
            folder(),
            None,
            [
                "the lake /lake was made from synthetic data (20 users",
                "MovieLens of /ml is another source",
                "'make run' without DATA goes on",
                "'ferry data reset'",
                "FERRY_HOME=DIR",
            ],
        ),
        (
            MOVIELENS,
            None,
            None,
            ["from MovieLens of /ml,", "and synthetic data is another", "'make run DATA=/ml'"],
        ),
        (MOVIELENS, folder("/other"), None, ["of /ml,", "MovieLens of /other is another source"]),
        (
            MOVIELENS,
            folder(),
            YESTERDAY,
            ["RUN_DATE=2026-03-09 would move every event of /ml by 8 days", "2026-03-01"],
        ),
        (
            replace(NOTHING, is_unknown=True),
            None,
            None,
            ["the lake /lake holds data of unknown origin"],
        ),
        (replace(NOTHING, is_unknown=True), folder(), None, ["'ferry data import-movielens'"]),
    ],
)
def test_another_data_set_is_refused_in_one_line(
    held: Held, wanted: Folder | None, run_date: date | None, parts: list[str]
) -> None:
    with pytest.raises(OtherSourceError) as refused:
        choose(held, wanted, run_date, YESTERDAY)
    for part in [*parts, "'ferry data reset'"]:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_day_before_the_first_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"RUN_DATE=2026-02-24: .* begin on 2026-02-25"):
        choose(DEMO, None, date(2026, 2, 24), YESTERDAY)


def test_events_are_not_read_to_find_the_newest_where_nothing_has_changed() -> None:
    assert choose(MOVIELENS, Folder("/ml", True, never), None, YESTERDAY).run_date == BEFORE
    assert choose(NOTHING, Folder("/ml", False, never), None, YESTERDAY).run_date == YESTERDAY


@given(grown=st.integers(0, 500), later=st.integers(0, 500))
def test_a_folder_that_grows_keeps_its_shift(grown: int, later: int) -> None:
    newest = NEWEST + timedelta(days=grown)
    today = BEFORE + timedelta(days=later)
    choice = choose(MOVIELENS, folder(changed=True, newest=newest), None, today)
    landed = date.fromisoformat(choice.command[-1])
    assert (landed - newest).days == MOVED.shift_days
    assert choice.run_date == min(landed, today)


NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
TODAY = NOON.date()
LATE = DayCalendar(complete_after=timedelta(hours=13))


@pytest.mark.parametrize(
    ("run_date", "calendar", "partial_day"),
    [
        (None, DayCalendar(), False),
        (YESTERDAY, DayCalendar(), False),
        (YESTERDAY, DayCalendar(), True),
        (TODAY, DayCalendar(), True),
        (YESTERDAY, LATE, True),
    ],
)
def test_run_dates_that_can_be_built(
    run_date: date | None, calendar: DayCalendar, partial_day: bool
) -> None:
    require_run_date(run_date, calendar, NOON, partial_day=partial_day)


@pytest.mark.parametrize(
    ("run_date", "calendar", "partial_day", "message"),
    [
        (
            TODAY,
            DayCalendar(),
            False,
            r"RUN_DATE=2026-03-10 has not ended: it is complete at 2026-03-11 00:00 UTC\. The last "
            r"complete day is 2026-03-09; PARTIAL_DAY=1 builds from the part",
        ),
        (YESTERDAY, LATE, False, r"complete at 2026-03-10 13:00 UTC.* day is 2026-03-08"),
        (TODAY + timedelta(days=1), DayCalendar(), True, "2026-03-11 is in the future"),
        (TODAY + timedelta(days=1), DayCalendar(), False, "2026-03-11 is in the future"),
        # It has begun where the data are.
        (TODAY + timedelta(days=1), DayCalendar("Pacific/Kiritimati"), False, "has not ended"),
        (None, DayCalendar(), True, "PARTIAL_DAY=1 needs a RUN_DATE"),
    ],
)
def test_run_dates_that_are_refused(
    run_date: date | None, calendar: DayCalendar, partial_day: bool, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        require_run_date(run_date, calendar, NOON, partial_day=partial_day)
