from __future__ import annotations

import csv
from datetime import date
from pathlib import Path

import pytest

from pipelines.data.identity import MovielensFolder, Origin
from pipelines.data.movielens import import_movielens, new_landing
from pipelines.errors import DataError
from pipelines.lake import Lake

RATINGS = """userid,movieid,rating,timestamp
1,10,4.0,964982703
2,10,2.5,1537799250
"""
MOVIES = """movieId,title,genres
10,Toy Story (1995),Adventure|Children
"""

ORIGIN = Origin(brought=MovielensFolder(folder="/ml", shift_days=0), last_day=date(2024, 3, 1))


def source(tmp_path: Path, ratings: str = RATINGS, movies: str = MOVIES) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "ratings.csv").write_text(ratings, encoding="utf-8")
    (folder / "movies.csv").write_text(movies, encoding="utf-8")
    return folder


def landed_ratings(tmp_path: Path) -> list[str]:
    text = (tmp_path / "landing" / "ratings" / "ratings.csv").read_text(encoding="utf-8")
    return text.splitlines()


def landed_items(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "landing" / "items" / "items.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_columns_are_renamed_and_timestamps_stay_without_an_end_date(tmp_path: Path) -> None:
    result = import_movielens(source(tmp_path), Lake(str(tmp_path)), None)
    assert landed_ratings(tmp_path) == [
        "user_id,item_id,rating,timestamp",
        "1,10,4.0,964982703",
        "2,10,2.5,1537799250",
    ]
    assert (result.ratings, result.items, result.shifted_days) == (2, 1, 0)
    assert (result.first_day, result.last_day) == (date(2000, 7, 30), date(2018, 9, 24))
    assert "2 ratings and 1 items" in str(result)


def test_the_newest_event_falls_on_the_end_date_at_its_time_of_day(tmp_path: Path) -> None:
    result = import_movielens(source(tmp_path), Lake(str(tmp_path)), date(2024, 3, 1))
    shift = (date(2024, 3, 1) - date(2018, 9, 24)).days
    assert result.shifted_days == shift
    assert result.last_day == date(2024, 3, 1)
    assert [line.rsplit(",", 1)[1] for line in landed_ratings(tmp_path)[1:]] == [
        str(964982703 + shift * 86_400),
        str(1537799250 + shift * 86_400),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        "3,10,4.0,yesterday",
        "3,10,4.0",
        "3,10,4.0,964982703,1",
        "x,10,4.0,",
        '3,"10,4.0,964982703',
        "3,10,4.0,99999999999999",
        "",
    ],
)
def test_a_bad_row_goes_through_and_spoils_no_other(tmp_path: Path, bad: str) -> None:
    lines = RATINGS.splitlines()
    ratings = "\n".join([lines[0], bad, *lines[1:]]) + "\n"
    result = import_movielens(source(tmp_path, ratings), Lake(str(tmp_path)), None)
    assert result.last_day == date(2018, 9, 24)
    kept = [bad] if bad else []
    assert landed_ratings(tmp_path)[1:] == [*kept, *lines[1:]]


def test_a_row_that_is_too_short_for_a_wide_source_does_not_turn_into_a_valid_one(
    tmp_path: Path,
) -> None:
    ratings = "rating,userId,movieId,timestamp,note\n4.0,1,10,964982703,x\n1,10,4.0,964982703\n"
    import_movielens(source(tmp_path, ratings), Lake(str(tmp_path)), None)
    assert landed_ratings(tmp_path)[1:] == ["1,10,4.0,964982703", "1,10,4.0,964982703,"]


def test_titles_stay_as_they_are_and_give_the_year(tmp_path: Path) -> None:
    cases = [
        ('"American President, The (1995)"', "American President, The (1995)", "1995"),
        ('"""Great Performances"" Cats (1998)"', '"Great Performances" Cats (1998)', "1998"),
        ("Death Note (2006–2007)", "Death Note (2006–2007)", "2006"),
        ("Big Bang (2007-)", "Big Bang (2007-)", "2007"),
        ("From Dusk (1999) ", "From Dusk (1999) ", "1999"),
        ("2001: A Space (1968)", "2001: A Space (1968)", "1968"),
        ("Babylon 5", "Babylon 5", ""),
        ("City (1999) of (abc)", "City (1999) of (abc)", ""),
        ("Amélie (2001)", "Amélie (2001)", "2001"),
    ]
    movies = "movieId,title,genres\n" + "".join(
        f"{i},{written},Drama\n" for i, (written, _, _) in enumerate(cases)
    )
    import_movielens(source(tmp_path, movies=movies), Lake(str(tmp_path)), None)
    landed = [(row["title"], row["release_year"]) for row in landed_items(tmp_path)]
    assert landed == [(title, year) for _, title, year in cases]


def test_no_genres_listed_is_no_genre(tmp_path: Path) -> None:
    movies = MOVIES + "11,Paterson,(no genres listed)\n"
    import_movielens(source(tmp_path, movies=movies), Lake(str(tmp_path)), None)
    assert [row["genres"] for row in landed_items(tmp_path)] == ["Adventure|Children", ""]


def test_a_second_import_replaces_the_first(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    (landing / "ratings").mkdir(parents=True)
    (landing / "ratings" / "2020-01-01.csv").write_text("old", encoding="utf-8")
    import_movielens(source(tmp_path), Lake(str(tmp_path)), None)
    assert sorted(p.name for p in landing.rglob("*")) == [
        "items",
        "items.csv",
        "origin.json",
        "ratings",
        "ratings.csv",
    ]


def test_what_fails_leaves_the_landing_area_as_it_was(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    (landing / "ratings").mkdir(parents=True)
    (landing / "ratings" / "kept.csv").write_text("old", encoding="utf-8")
    with pytest.raises(ZeroDivisionError), new_landing(Lake(str(tmp_path)), ORIGIN) as folder:
        (folder / "ratings" / "new.csv").write_text("new", encoding="utf-8")
        raise ZeroDivisionError
    assert [p.name for p in landing.rglob("*.csv")] == ["kept.csv"]
    assert [p.name for p in landing.iterdir()] == ["ratings"]


def test_a_missing_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        import_movielens(tmp_path / "nowhere", Lake(str(tmp_path)), None)
    folder = source(tmp_path)
    (folder / "movies.csv").unlink()
    with pytest.raises(DataError, match=r"movies\.csv: no such file"):
        import_movielens(folder, Lake(str(tmp_path)), None)


@pytest.mark.parametrize(
    ("ratings", "movies", "message"),
    [
        ("", MOVIES, r"ratings\.csv: the file is empty"),
        ("userid,movieid,rating\n", MOVIES, r"no column timestamp; the header is: userid, movi"),
        ("userid,movieid,rating,timestamp\n", MOVIES, "no rating that can be read"),
        ("userid,movieid,rating,timestamp\n1,2,x,5\n", MOVIES, "no rating that can be read"),
        (RATINGS, "movieId,title,genres\n", r"movies\.csv: no movie in it"),
        (RATINGS, "movieId;title;genres\n", r"movies\.csv: no column movieId; the header is"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(
    tmp_path: Path, ratings: str, movies: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        import_movielens(source(tmp_path, ratings, movies), Lake(str(tmp_path)), None)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "landing" / "ratings").exists()


def test_the_landing_area_remembers_what_was_brought(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    import_movielens(source(tmp_path), lake, date(2018, 9, 25))
    assert Origin.of_landing(lake) == Origin(
        brought=MovielensFolder(folder=str(tmp_path / "source"), shift_days=1),
        last_day=date(2018, 9, 25),
    )
