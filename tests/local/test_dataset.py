"""Bringing data in for a run: once, and never two data sets in one lake."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from local.credentials import load_secrets
from local.data_choice import Choice
from local.dataset import bring_in, choose_data
from local.home import Home, load_home
from local.source_files import landed_ns, movielens_files
from pipelines.config import PROJECT_ROOT, DataConfig, load_pipeline_config
from pipelines.data.identity import LakeSource, MovielensFolder, Origin, SyntheticWorld
from pipelines.data.synthetic import generate
from pipelines.errors import ConfigError, DataError, OtherSourceError
from pipelines.lake import Lake

CONFIG = load_pipeline_config(PROJECT_ROOT / "pipeline.yaml").data
DAY = date(2026, 3, 1)
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
NEWEST = 1_000_000_000
#: The newest event's day in the folder.
NEWEST_DAY = datetime.fromtimestamp(NEWEST, UTC).date()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("FERRY_HOME", str(tmp_path / "home"))
    home = load_home()
    home.make_folders()
    return home


@pytest.fixture
def lake(home: Home) -> Lake:
    return Lake(str(home.lake))


@pytest.fixture
def movielens(tmp_path: Path) -> Path:
    folder = tmp_path / "ml"
    folder.mkdir()
    write_ratings(folder, [NEWEST])
    (folder / "movies.csv").write_text("movieId,title,genres\n2,Toy Story (1995),Animation\n")
    return folder


def write_ratings(folder: Path, timestamps: Iterable[int]) -> None:
    lines = ["userId,movieId,rating,timestamp", *(f"1,2,4.0,{at}" for at in timestamps)]
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")


def choose(home: Home, data: Path | None, run_date: date | None = None) -> Choice:
    return choose_data(home, CONFIG, data, run_date, NOW)


def bring(home: Home, data: Path | None, run_date: date | None = None) -> list[str]:
    said: list[str] = []
    bring_in(home, load_secrets(home), choose(home, data, run_date), said.append)
    return said


def ingested(lake: Lake) -> Path:
    """Pretend that a run has made something of the landing area."""
    day = Path(lake.ratings) / "dt=2026-02-28"
    day.mkdir(parents=True)
    (day.parent / "_lake_id").write_text("name\n")
    LakeSource.configured(CONFIG, lake).save(lake.made_from)
    return day


def landed_days(lake: Lake) -> list[date]:
    lines = (Path(lake.landing) / "ratings" / "ratings.csv").read_text().splitlines()[1:]
    return [datetime.fromtimestamp(int(line.split(",")[3]), UTC).date() for line in lines]


def test_the_same_data_are_brought_in_once(home: Home, lake: Lake, movielens: Path) -> None:
    bring(home, movielens, DAY)
    assert landed_days(lake) == [DAY]
    day = ingested(lake)
    at = landed_ns(lake)
    assert bring(home, movielens)[0].endswith("up to 2026-03-01 (already there)")
    assert choose(home, movielens).run_date == DAY
    assert choose(home, movielens, date(2026, 2, 1)).run_date == date(2026, 2, 1)
    assert landed_ns(lake) == at
    assert day.exists()


def test_a_folder_that_grows_is_brought_in_again_moved_as_before(
    home: Home, lake: Lake, movielens: Path
) -> None:
    bring(home, movielens, DAY)
    ingested(lake)
    write_ratings(movielens, [NEWEST, NEWEST + 2 * 86_400])
    assert choose(home, movielens).run_date == DAY + timedelta(days=2)
    bring(home, movielens)
    assert landed_days(lake) == [DAY, DAY + timedelta(days=2)]
    assert not choose(home, movielens).command


def test_another_source_is_refused_and_nothing_is_touched(
    home: Home, lake: Lake, movielens: Path
) -> None:
    bring(home, movielens, DAY)
    day = ingested(lake)
    at = landed_ns(lake)
    for data, run_date, reason in (
        (None, None, "synthetic data is another source"),
        (None, DAY, "synthetic data is another source"),
        (movielens, date(2026, 3, 2), "would move every event"),
    ):
        with pytest.raises(OtherSourceError, match=reason):
            choose(home, data, run_date)
    assert landed_ns(lake) == at
    assert day.exists()


def test_a_lake_that_is_read_otherwise_is_refused(home: Home, lake: Lake, movielens: Path) -> None:
    bring(home, movielens, DAY)
    ingested(lake)
    strings = CONFIG.model_copy(update={"user_id_type": "string"})
    with pytest.raises(OtherSourceError, match="user_id_type string"):
        choose_data(home, strings, movielens, None, NOW)


def test_a_synthetic_data_set_goes_on(home: Home, lake: Lake) -> None:
    generate(lake, 5, 5, 3, 1, DAY)
    ingested(lake)
    assert choose(home, None) == Choice(date(2026, 3, 9), str(Origin.load(lake.origin).brought))
    with pytest.raises(ConfigError, match="begin on 2026-02-27"):
        choose(home, None, date(2026, 2, 26))


def test_data_of_which_nothing_is_known_are_refused(
    home: Home, lake: Lake, movielens: Path
) -> None:
    (Path(lake.landing) / "ratings").mkdir(parents=True)
    for data in (None, movielens):
        with pytest.raises(OtherSourceError, match="data of unknown origin"):
            choose(home, data)


def test_a_failed_import_leaves_everything_as_it_was(
    home: Home, lake: Lake, movielens: Path
) -> None:
    bring(home, movielens, DAY)
    day = ingested(lake)
    (movielens / "movies.csv").write_text("nonsense\n")
    with pytest.raises(DataError, match="could not be brought in"):
        bring(home, movielens)
    assert day.exists()
    assert landed_days(lake) == [DAY]


def test_a_folder_without_the_files_is_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file ratings\.csv"):
        choose(home, tmp_path)


def test_a_source_of_the_users_own_is_left_to_the_configuration(
    home: Home, lake: Lake, tmp_path: Path
) -> None:
    own = reading("/data/{run_date}.csv")
    assert choose_data(home, own, None, None, NOW) == Choice(date(2026, 3, 9), "")
    with pytest.raises(ConfigError, match="leave out one of the two"):
        choose_data(home, own, tmp_path, None, NOW)
    ingested(lake)
    with pytest.raises(OtherSourceError, match=r"was made from \{landing\}/ratings"):
        choose_data(home, own, None, None, NOW)


def reading(path: str) -> DataConfig:
    events = CONFIG.events.model_copy(update={"path": path})
    return CONFIG.model_copy(update={"events": events})


def of_an_earlier_ferry(lake: Lake, folder: Path | None, *, is_whole: bool = True) -> None:
    """Leave what an earlier Ferry wrote down of what it had brought in up to DAY."""
    Path(lake.origin).unlink(missing_ok=True)
    (Path(lake.landing) / "files.json").unlink(missing_ok=True)
    (Path(lake.landing) / "ratings").mkdir(parents=True, exist_ok=True)
    (Path(lake.ratings) / "dt=2026-02-28").mkdir(parents=True)
    source = {
        "folder": None if folder is None else str(folder),
        "files": movielens_files(folder) if folder else (),
        "end_date": str(DAY),
    }
    stamp = {"source": source, "landed_ns": landed_ns(lake), "is_whole": is_whole}
    (Path(lake.root) / "source.json").write_text(json.dumps(stamp))


def test_an_earlier_home_with_synthetic_data_goes_on(
    home: Home, lake: Lake, movielens: Path
) -> None:
    of_an_earlier_ferry(lake, None)
    with pytest.raises(OtherSourceError, match=r"made from synthetic data \(2,000 users"):
        choose(home, movielens)
    assert not choose(home, None).command
    first_day = date(2026, 1, 1)
    world = SyntheticWorld(users=2000, items=1500, days=60, seed=42, first_day=first_day)
    assert Origin.of_landing(lake) == Origin(brought=world, last_day=DAY)
    assert world.founded_until == DAY


def test_an_earlier_home_with_a_folder_goes_on(home: Home, lake: Lake, movielens: Path) -> None:
    bring(home, movielens, DAY)
    of_an_earlier_ferry(lake, movielens)
    with pytest.raises(OtherSourceError, match="and synthetic data is another source"):
        choose(home, None)
    assert choose(home, movielens).run_date == DAY
    assert not choose(home, movielens).command
    shift = (DAY - NEWEST_DAY).days
    origin = Origin.of_landing(lake)
    assert origin
    assert origin.brought == MovielensFolder(folder=str(movielens), shift_days=shift)
    write_ratings(movielens, [NEWEST, NEWEST + 86_400])
    assert choose(home, movielens).command[-1] == "2026-03-02"


def test_an_earlier_home_whose_folder_has_changed_is_refused(
    home: Home, lake: Lake, movielens: Path
) -> None:
    bring(home, movielens, DAY)
    of_an_earlier_ferry(lake, movielens)
    write_ratings(movielens, [NEWEST, NEWEST + 86_400])
    with pytest.raises(OtherSourceError, match="its files have changed since"):
        choose(home, movielens)


def test_an_earlier_home_that_was_left_half_way_is_refused(home: Home, lake: Lake) -> None:
    of_an_earlier_ferry(lake, None, is_whole=False)
    with pytest.raises(OtherSourceError, match="data of unknown origin"):
        choose(home, None)
