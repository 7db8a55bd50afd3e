from __future__ import annotations

import csv
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.synthetic import GENRES, generate, go_on
from pipelines.errors import DataError
from pipelines.lake import Lake

USERS, ITEMS, DAYS = 300, 1500, 20
END = date(2024, 3, 1)


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    lake = Lake(str(folder))
    generate(lake, USERS, ITEMS, DAYS, 7, END)
    return Path(lake.landing)


def rows(folder: Path) -> list[dict[str, str]]:
    found = []
    for path in sorted((folder / "ratings").iterdir()):
        with path.open(encoding="utf-8") as file:
            found += list(csv.DictReader(file))
    return found


def catalogue(folder: Path) -> list[dict[str, str]]:
    with (folder / "items" / "items.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def day_of(row: dict[str, str]) -> date:
    return datetime.fromtimestamp(int(row["timestamp"]), UTC).date()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.csv")}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    landing: Path, tmp_path: Path
) -> None:
    same, other = Lake(str(tmp_path / "same")), Lake(str(tmp_path / "other"))
    generate(same, USERS, ITEMS, DAYS, 7, END)
    generate(other, USERS, ITEMS, DAYS, 8, END)
    assert contents(Path(same.landing)) == contents(landing)
    assert contents(Path(other.landing)) != contents(landing)


def test_it_goes_on_and_the_days_before_stay_to_the_byte(landing: Path, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    generate(lake, USERS, ITEMS, DAYS, 7, END)
    assert go_on(lake, END) == go_on(lake, END - timedelta(days=3)) == 0
    assert go_on(lake, END + timedelta(days=2)) == 2
    assert go_on(lake, END + timedelta(days=3)) == 1
    grown, before = contents(Path(lake.landing)), contents(landing)
    assert {name: grown[name] for name in before} == before
    added = sorted(grown.keys() - before.keys())
    assert added == [f"ratings/{END + timedelta(days=n)}.csv" for n in (1, 2, 3)]
    # The same as in one go: how often a run asked for more has no part in it.
    at_once = Lake(str(tmp_path / "at once"))
    generate(at_once, USERS, ITEMS, DAYS, 7, END)
    go_on(at_once, END + timedelta(days=3))
    assert contents(Path(at_once.landing)) == grown
    # It is as busy as before, and nobody rates an item a second time.
    sizes = [len(grown[name].splitlines()) for name in sorted(grown) if "ratings" in name]
    assert min(sizes[-3:]) > np.mean(sizes) / 3
    pairs = [(r["user_id"], r["item_id"]) for r in rows(Path(lake.landing))]
    assert len(pairs) == len(set(pairs))


def test_other_data_do_not_go_on(tmp_path: Path) -> None:
    assert go_on(Lake(str(tmp_path)), END) == 0


def test_every_day_has_events_of_that_day_in_the_order_of_time(landing: Path) -> None:
    files = sorted((landing / "ratings").iterdir())
    assert [p.stem for p in files] == [str(END - timedelta(days=d)) for d in range(DAYS)][::-1]
    for path in files:
        with path.open(encoding="utf-8") as file:
            of_day = list(csv.DictReader(file))
        assert of_day
        assert {day_of(row) for row in of_day} == {date.fromisoformat(path.stem)}
        times = [int(row["timestamp"]) for row in of_day]
        assert times == sorted(times)


def test_values_keep_the_contract_and_nobody_rates_twice(landing: Path) -> None:
    events = rows(landing)
    assert {float(r["rating"]) * 2 for r in events} <= set(range(1, 11))
    known = {row["item_id"] for row in catalogue(landing)}
    assert {r["item_id"] for r in events} <= known
    pairs = [(r["user_id"], r["item_id"]) for r in events]
    assert len(pairs) == len(set(pairs))


def test_users_come_back_and_new_ones_and_new_items_appear_to_the_last_day(landing: Path) -> None:
    days = defaultdict(set)
    first_seen: dict[str, date] = {}
    for row in rows(landing):
        days[row["user_id"]].add(day_of(row))
        first_seen.setdefault("item " + row["item_id"], day_of(row))
        first_seen.setdefault("user " + row["user_id"], day_of(row))
    assert np.mean([len(d) > 1 for d in days.values()]) > 0.7
    on_last_day = Counter(key.split()[0] for key, day in first_seen.items() if day == END)
    assert on_last_day["user"] >= 1
    # The last item of the catalogue joins on the last day, whether or not anybody rates it.
    assert not any(r["item_id"] == str(ITEMS) and day_of(r) < END for r in rows(landing))


def test_titles_are_different_and_some_need_quoting(landing: Path) -> None:
    items = catalogue(landing)
    titles = [row["title"] for row in items]
    assert len(set(titles)) == len(titles) == ITEMS
    assert all(row["title"].endswith(f"({row['release_year']})") for row in items)
    assert any("," in title for title in titles)
    assert any('"' in title for title in titles)
    for row in items:
        assert 1 <= len(row["genres"].split("|")) <= 3
        assert set(row["genres"].split("|")) <= set(GENRES)


def test_few_items_have_most_of_the_events(landing: Path) -> None:
    counts = sorted(Counter(r["item_id"] for r in rows(landing)).values(), reverse=True)
    assert sum(counts[: ITEMS // 5]) > 0.35 * sum(counts)


def test_taste_shows_in_what_a_user_picks_and_in_how_it_is_rated(landing: Path) -> None:
    main_genre = {row["item_id"]: row["genres"].split("|")[0] for row in catalogue(landing)}
    of_user: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for row in rows(landing):
        of_user[row["user_id"]].append((main_genre[row["item_id"]], float(row["rating"])))
    shares, advantages = [], []
    for picks in of_user.values():
        if len(picks) < 30:
            continue
        favourite, count = Counter(genre for genre, _ in picks).most_common(1)[0]
        liked = [rating for genre, rating in picks if genre == favourite]
        others = [rating for genre, rating in picks if genre != favourite]
        shares.append(count / len(picks))
        advantages.append(np.mean(liked) - np.mean(others))
    assert np.mean(shares) > 0.25
    assert np.mean(advantages) > 0.3


@pytest.mark.parametrize(("users", "items", "days"), [(1, 1, 3), (2, 3, 1), (1, 40, 10)])
def test_the_smallest_sizes_have_an_event_a_day_too(
    tmp_path: Path, users: int, items: int, days: int
) -> None:
    lake = Lake(str(tmp_path))
    result = generate(lake, users, items, days, 1, END)
    events = rows(Path(lake.landing))
    assert {day_of(row) for row in events} == {END - timedelta(days=d) for d in range(days)}
    assert result.ratings == len(events)


def test_nothing_to_generate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 1"):
        generate(Lake(str(tmp_path)), 0, 10, 10, 1, END)
