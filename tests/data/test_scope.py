"""Which days an ingest reads and writes: rules, without a lake."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.day_records import DayRecord, SourceFile
from pipelines.data.scope import LakeDays, Scope

RUN = date(2026, 3, 20)
READ = datetime(2026, 3, 1, tzinfo=UTC)


def back(days: int) -> date:
    """So many days before the run date."""
    return RUN - timedelta(days=days)


def file(day: date, size: int = 1) -> SourceFile:
    return SourceFile(path=f"/in/{day}.csv", size=size, modified=READ)


def record(*files: SourceFile, complete: bool = True, digest: str | None = None) -> DayRecord:
    return DayRecord(read_at=READ, complete=complete, digest=digest, files=frozenset(files))


def lake(records: dict[date, DayRecord], interrupted: set[date] | None = None) -> LakeDays:
    return LakeDays(frozenset(records), records, frozenset(interrupted or ()))


def file_days(
    records: dict[date, DayRecord],
    files: dict[date, SourceFile],
    interrupted: set[date] | None = None,
) -> set[int]:
    """How many days before the run date those lie whose files are read."""
    scope = Scope(RUN, 7, lake(records, interrupted))
    chosen = scope.file_days({day: frozenset([each]) for day, each in files.items()})
    return {(RUN - day).days for day in chosen}


def test_a_run_reads_its_own_day_alone_if_all_is_well() -> None:
    days = [back(n) for n in range(1, 20)]
    read = {day: record(file(day)) for day in days}
    assert file_days(read, {day: file(day) for day in [RUN, *days]}) == {0}


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        # A first run takes what may still get late rows, too.
        ([], {0, 1, 2, 3, 4, 5, 6, 7}),
        # One missed night, and a month of them.
        ([2, 3, 4, 5, 6, 7, 8], {0, 1}),
        ([30, 31], set(range(30))),
        # A gap that lies further back than late rows are taken in is left to a backfill.
        ([1, 2, 3, 4, 5, 6, 7, 20], {0}),
    ],
)
def test_missed_days_are_read(held: list[int], expected: set[int]) -> None:
    read = {back(n): record(file(back(n))) for n in held}
    assert file_days(read, {back(n): file(back(n)) for n in range(40)}) == expected


def test_days_that_changed_or_were_read_too_early_are_read_again() -> None:
    read = {back(n): record(file(back(n))) for n in range(1, 20)}
    files = {back(n): file(back(n)) for n in range(20)}
    files[back(7)] = file(back(7), size=2)
    # Further back than late rows are taken in.
    files[back(8)] = file(back(8), size=2)
    assert file_days(read, files) == {0, 7}
    scope = Scope(RUN, 7, lake(read))
    assert set(scope.changed_too_late({d: frozenset([f]) for d, f in files.items()})) == {back(8)}
    read[back(15)] = record(file(back(15)), complete=False)
    assert file_days(read, files) == {0, 7, 15}
    # Not if there is nothing to read any more.
    del files[back(15)]
    assert file_days(read, files) == {0, 7}


def test_an_interrupted_day_is_read_however_old_it_is() -> None:
    read = {back(n): record(file(back(n))) for n in range(1, 20) if n != 17}
    files = {back(n): file(back(n)) for n in range(20)}
    assert file_days(read, files, interrupted={back(17)}) == {0, 17}


def test_of_an_earlier_ferrys_day_the_time_of_its_files_decides() -> None:
    early = record()
    assert early.has_read([file(RUN)])
    assert not early.has_read([file(RUN).model_copy(update={"modified": READ + timedelta(1)})])


def test_late_rows_may_stand_in_the_files_of_the_days_after() -> None:
    scope = Scope(RUN, 2, lake({}))
    files = {back(n): frozenset([file(back(n))]) for n in range(-3, 10)}
    assert scope.carriers({back(5)}, files) == {back(4), back(3)}
    assert scope.carriers({back(5), back(4)}, files) == {back(3), back(2)}
    assert scope.carriers({RUN}, files) == {back(-1), back(-2)}
    assert scope.carriers(set(), files) == set()


@pytest.mark.parametrize(
    ("day", "complete", "is_read"),
    [
        (RUN, True, True),
        (back(7), True, True),
        (back(8), True, False),
        (back(8), False, True),
        (back(-1), True, False),
    ],
)
def test_of_a_whole_history_recent_and_incomplete_days_are_looked_at(
    day: date, complete: bool, is_read: bool
) -> None:
    assert (
        Scope(RUN, 7, lake({day: record(complete=complete)})).is_read_from_history(day) == is_read
    )


def test_of_the_days_that_are_looked_at_the_changed_ones_are_written() -> None:
    held = {back(n): record(digest="3-a-b") for n in range(3)}
    held[back(3)] = record()
    scope = Scope(RUN, 7, lake(held))
    assert not scope.is_changed(back(1), "3-a-b")
    assert scope.is_changed(back(1), "4-a-c")
    assert scope.is_changed(RUN, "3-a-b")
    # Of an earlier Ferry, or missing.
    assert scope.is_changed(back(3), "3-a-b")
    assert scope.is_changed(back(9), "3-a-b")
    assert Scope(RUN, 7, lake(held), frozenset({back(1)})).is_changed(back(1), "3-a-b")


@pytest.mark.parametrize(
    ("rows", "paths", "first", "is_cut_off"),
    [
        # All of it is there, or all but what somebody took out.
        (5, {"/in/a"}, 9, False),
        (4, {"/in/a"}, 9, False),
        # Its files are gone, and what other files have of it is less.
        (4, {"/in/b"}, 9, True),
        # A whole new dump under another name.
        (5, {"/in/b"}, 9, False),
        # The history begins in the middle of this day now.
        (4, {"/in/a"}, 3, True),
        (6, {"/in/a"}, 3, True),
    ],
)
def test_what_a_history_has_lost_of_a_day_is_not_lost_here(
    rows: int, paths: set[str], first: int, is_cut_off: bool
) -> None:
    day = back(3)
    known = record(SourceFile(path="/in/a", size=1, modified=READ), digest="5-a-b")
    scope = Scope(RUN, 7, lake({day: known, back(5): record(digest="5-a-b")}))
    assert (day in scope.cut_off({day: rows}, paths, back(first))) == is_cut_off


def test_the_first_day_of_lake_and_history_is_replaced_unless_rows_are_gone() -> None:
    day = back(3)
    scope = Scope(RUN, 7, lake({day: record(digest="5-a-b")}))
    assert scope.cut_off({day: 5}, set(), day) == set()
    assert scope.cut_off({day: 4}, set(), day) == {day}


def test_days_that_a_changed_file_gave_rows_to_are_read_again() -> None:
    read = {back(n): record(file(back(n))) for n in range(1, 9)}
    # A late row of day 4 came with the file of day 2, which has changed since.
    read[back(4)] = record(file(back(4)), file(back(2)))
    files = {back(n): file(back(n)) for n in range(9)}
    files[back(2)] = file(back(2), size=2)
    assert file_days(read, files) == {0, 2, 4}


def test_a_file_that_comes_after_its_day_was_passed_by_is_too_late() -> None:
    read = {back(n): record(file(back(n))) for n in range(1, 20) if n not in (10, 11)}
    late = file(back(10)).model_copy(update={"modified": READ + timedelta(1)})
    files = {back(n): frozenset([file(back(n))]) for n in range(20)}
    scope = Scope(RUN, 7, lake(read))
    # What was there all along was left out by somebody's will.
    assert scope.changed_too_late(files) == {}
    assert set(scope.changed_too_late(files | {back(10): frozenset([late])})) == {back(10)}
    # Before the lake begins, nothing is missing.
    before = late.model_copy(update={"path": "/in/old"})
    assert scope.changed_too_late({back(40): frozenset([before])}) == {}


@given(st.sets(st.integers(1, 30)), st.sets(st.integers(0, 30)), st.integers(0, 10))
def test_whatever_is_held_no_day_after_the_last_one_held_is_left_out(
    held: set[int], there: set[int], late_days: int
) -> None:
    read = {back(n): record(file(back(n))) for n in held}
    scope = Scope(RUN, late_days, lake(read))
    chosen = scope.file_days({back(n): frozenset([file(back(n))]) for n in there})
    assert RUN in chosen
    assert max(chosen) == RUN
    newest = min(held, default=late_days + 1)
    for n in there - held:
        if n < newest:
            assert back(n) in chosen
