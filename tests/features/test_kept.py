"""What is kept of the features: when it may be used, what is deleted, what a run gets."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pipelines.errors import DataError
from pipelines.features import kept
from pipelines.features.kept import Block, HeldDay, KeptState, LakeNow
from pipelines.lake import Lake
from tests.features.universe import configuration

FIRST, SECOND, THIRD = (date(2024, 3, day) for day in (1, 2, 3))
NOW = LakeNow(
    "lake",
    {day: HeldDay(str(day), 100) for day in (FIRST, SECOND, THIRD)},
    {"the code of the features": "c", "data.positive_rating": "3.5"},
)
FILES = {"p/users/0.parquet": 3, "p/samples/day/0.parquet": 5}
STATE = KeptState(
    part="p",
    through=SECOND,
    written_at=datetime(2024, 3, 3, tzinfo=UTC),
    lake_id="lake",
    settings=dict(NOW.settings),
    days={FIRST: str(FIRST), SECOND: str(SECOND)},
    blocks=(Block(part="p", name="day", last_day=SECOND),),
    files=FILES,
)


def with_day(day: date, digest: str | None) -> LakeNow:
    days = {d: files for d, files in NOW.days.items() if d != day}
    return replace(NOW, days=days | ({day: HeldDay(digest, 1)} if digest else {}))


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (NOW, None),
        # What comes after the state is not in it.
        (with_day(THIRD, "other"), None),
        (with_day(THIRD, None), None),
        (replace(NOW, lake_id="other"), "the lake has begun anew"),
        (with_day(FIRST, "other"), "day 2024-03-01 has changed"),
        (with_day(SECOND, None), "day 2024-03-02 is gone"),
        (with_day(date(2024, 2, 1), "late"), "day 2024-02-01 is new"),
        (
            replace(NOW, settings={**NOW.settings, "data.positive_rating": "4.0"}),
            "data.positive_rating has changed",
        ),
        (
            replace(NOW, settings={**NOW.settings, "the code of the features": "d"}),
            "the code of the features has changed",
        ),
        (replace(NOW, settings={**NOW.settings, "new": "1"}), "new has changed"),
    ],
)
def test_a_state_is_used_only_if_all_days_would_give_the_same(
    now: LakeNow, why: str | None
) -> None:
    assert now.why_not(STATE, FILES) == why


@pytest.mark.parametrize("files", [{}, {**FILES, "p/users/0.parquet": 2}])
def test_a_state_whose_files_are_lost_is_not_used(files: dict[str, int]) -> None:
    why = "what was kept up to 2024-03-02 is incomplete: p/users/0.parquet"
    assert NOW.why_not(STATE, files) == why


def test_the_days_to_compute_are_those_after_the_state() -> None:
    assert NOW.since(STATE, THIRD) == [THIRD]
    assert NOW.since(STATE, SECOND) == []
    assert NOW.since(None, SECOND) == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"data": {"positive_rating": 4.0}}, "data.positive_rating"),
        ({"data": {"user_id_type": "string"}}, "data.user_id_type"),
        ({"data": {"item_id_type": "string"}}, "data.item_id_type"),
        ({"data": {"time_zone": "Europe/Berlin"}}, "data.time_zone"),
        ({"features": {"history_length": 7}}, "features.history_length"),
        # How rows are marked does not enter what is kept.
        ({"evaluation": {"holdout_days": 2}}, None),
    ],
)
def test_every_setting_that_enters_features_is_noted(
    changes: dict[str, Any], name: str | None
) -> None:
    before = kept.settings_of(configuration())
    after = kept.settings_of(configuration(**changes))
    assert {n for n in before if before[n] != after[n]} == ({name} if name else set())


def write(lake: Lake, *paths: str) -> None:
    for path in paths:
        file = Path(lake.features, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)


def there(lake: Lake) -> set[str]:
    root = Path(lake.features)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_day_is_known_by_its_files(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    day = Path(lake.ratings, "dt=2024-03-01")
    day.mkdir(parents=True)
    (day / "a.parquet").write_text("rows")
    for other in ("_SUCCESS", "dt=2024-03-01/.a.parquet.crc", "_unfinished/note"):
        Path(lake.ratings, other).parent.mkdir(exist_ok=True)
        Path(lake.ratings, other).write_text("no rows")
    before = kept.lake_now(lake, "lake", configuration()).days
    assert before[FIRST].size == 4
    (day / "a.parquet").rename(day / "b.parquet")
    renamed = kept.lake_now(lake, "lake", configuration()).days
    os.utime(day / "b.parquet", ns=(1, 1))
    touched = kept.lake_now(lake, "lake", configuration()).days
    assert before.keys() == renamed.keys() == touched.keys() == {FIRST}
    assert len({days[FIRST].digest for days in (before, renamed, touched)}) == 3


def test_a_state_is_written_last_and_names_all_that_it_needs(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    write(lake, *(f"a/{name}/0.parquet" for name in ("users", "items", "samples/old")))
    with pytest.raises(DataError, match="a/events/old/ is gone: another run is at work"):
        kept.keep(lake, NOW, FIRST, "a", {"old": FIRST}, None)
    assert kept.load_states(lake, kept.kept_files(lake)) == []
    write(lake, "a/events/old/0.parquet")
    first = kept.keep(lake, NOW, FIRST, "a", {"old": FIRST}, None)
    write(lake, *(f"b/{name}/0.parquet" for name in ("users", "items", "samples/d", "events/d")))
    second = kept.keep(lake, NOW, SECOND, "b", {"d": SECOND}, first)
    assert kept.load_states(lake, kept.kept_files(lake)) == [second, first]
    assert [block.folder(lake, "samples") for block in second.blocks] == [
        f"{lake.features}/a/samples/old",
        f"{lake.features}/b/samples/d",
    ]
    assert second.days == {FIRST: str(FIRST), SECOND: str(SECOND)}
    for state in (first, second):
        assert NOW.why_not(state, kept.kept_files(lake)) is None

    # One that can't be read counts for nothing, and goes like what an interruption leaves.
    write(lake, "c/users/0.parquet", "d/state.json")
    files = kept.kept_files(lake)
    assert kept.load_states(lake, files) == [second, first]
    assert kept.newest([first, second], 1) == [second]
    kept.tidy(lake, [second], files)
    # Of the first one the blocks stay, which the second goes on with.
    assert there(lake) == {
        "a/samples/old/0.parquet",
        "a/events/old/0.parquet",
        "b/users/0.parquet",
        "b/items/0.parquet",
        "b/samples/d/0.parquet",
        "b/events/d/0.parquet",
        "b/state.json",
    }
    assert NOW.why_not(second, kept.kept_files(lake)) is None
    kept.tidy(lake, [], kept.kept_files(lake))
    assert list(Path(lake.features).iterdir()) == []


def test_a_run_keeps_its_files_when_what_is_kept_is_deleted(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    names = ("0.parquet", "1.parquet", ".0.parquet.crc", "_SUCCESS")
    write(lake, *(f"a/samples/old/{name}" for name in names))
    source, target = Path(lake.features, "a/samples/old"), tmp_path / "run"
    target.mkdir()
    kept.give(str(source), str(target), "kept-0")
    assert {path.name for path in target.iterdir()} == {"kept-0-0.parquet", "kept-0-1.parquet"}
    assert (target / "kept-0-0.parquet").samefile(source / "0.parquet")
    kept.tidy(lake, [], kept.kept_files(lake))
    assert (target / "kept-0-0.parquet").read_text() == "a/samples/old/0.parquet"


def test_files_are_copied_to_another_file_system(tmp_path: Path) -> None:
    (tmp_path / "0.parquet").write_text("rows")
    # Memory is another file system than that of temporary files, nearly everywhere.
    with TemporaryDirectory(dir="/dev/shm") as target:
        kept.give(str(tmp_path), target, "kept-0")
        assert Path(target, "kept-0-0.parquet").read_text() == "rows"
