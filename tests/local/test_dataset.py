"""Bringing data in for a run: once, and never two data sets in one lake."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from local.credentials import load_secrets
from local.dataset import Source, bring_in, find_source
from local.home import Home, load_home
from pipelines.config import PROJECT_ROOT, EventSource, load_pipeline_config
from pipelines.errors import ConfigError, DataError

EVENTS = load_pipeline_config(PROJECT_ROOT / "pipeline.yaml").data.events
DAY = date(2026, 3, 1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("FERRY_HOME", str(tmp_path / "home"))
    home = load_home()
    home.make_folders()
    return home


@pytest.fixture
def movielens(tmp_path: Path) -> Path:
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,4.0,1000000000\n")
    (folder / "movies.csv").write_text("movieId,title,genres\n2,Toy Story (1995),Animation\n")
    return folder


def bring(home: Home, source: Source | None) -> list[str]:
    assert source
    said: list[str] = []
    bring_in(home, load_secrets(home), source, said.append)
    return said


def ingested(home: Home) -> Path:
    """Pretend that a run has made something of the landing area."""
    day = home.lake / "ratings" / "dt=2026-02-28"
    day.mkdir(parents=True)
    return day


def test_the_same_data_are_brought_in_once(home: Home, movielens: Path) -> None:
    source = find_source(EVENTS, movielens, DAY)
    bring(home, source)
    day = ingested(home)
    assert bring(home, find_source(EVENTS, movielens, DAY))[0].endswith("(already there)")
    assert day.exists()


@pytest.mark.parametrize("change", ["date", "file"])
def test_other_data_begin_a_new_lake(home: Home, movielens: Path, change: str) -> None:
    bring(home, find_source(EVENTS, movielens, DAY))
    day = ingested(home)
    end = DAY
    if change == "date":
        end = date(2026, 3, 2)
    else:
        with (movielens / "ratings.csv").open("a") as file:
            file.write("3,2,5.0,1000000000\n")
    said = bring(home, find_source(EVENTS, movielens, end))
    assert "begins anew" in said[-1]
    assert not day.exists()


def test_data_of_somebody_else_are_set_aside(home: Home, movielens: Path) -> None:
    day = ingested(home)
    said = bring(home, find_source(EVENTS, movielens, DAY))
    assert "set-aside-" in said[0]
    assert not day.exists()
    assert list(home.lake.glob("set-aside-*/ratings/dt=2026-02-28"))


def test_a_failed_import_leaves_everything_as_it_was(home: Home, movielens: Path) -> None:
    bring(home, find_source(EVENTS, movielens, DAY))
    day = ingested(home)
    (movielens / "ratings.csv").write_text("nonsense\n")
    with pytest.raises(DataError):
        bring(home, find_source(EVENTS, movielens, DAY))
    assert day.exists()
    assert "2,4.0" in next((home.lake / "landing" / "ratings").iterdir()).read_text()


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file ratings\.csv"):
        find_source(EVENTS, tmp_path, DAY)


def test_a_source_of_the_users_own_is_left_to_the_configuration(tmp_path: Path) -> None:
    own = EventSource(path="/data/{run_date}.csv")
    assert find_source(own, None, DAY) is None
    with pytest.raises(ConfigError, match="leave out one of the two"):
        find_source(own, tmp_path, DAY)
