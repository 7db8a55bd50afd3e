"""A synthetic data set of any size, with tastes that models can learn.

Users and items share a space of as many dimensions as there are genres. An item leans to one to
three genres; a user likes a few of them, more or less. A user picks most items by taste (a genre
by liking, then an item of that genre by popularity, which follows Zipf's law), the rest by
popularity alone, and rates by the item's quality, by how well it meets the taste, and by how kind
a rater the user is. Users come back on later days; users and items join throughout, also on the
last day. No user rates an item twice (unless a day would have no event otherwise).

Days are made one after the other, so memory depends on users and items but not on events.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv as pa_csv

from pipelines.data.identity import Origin, SyntheticWorld, require_room_for
from pipelines.data.movielens import ITEM_COLUMNS, RATING_COLUMNS, new_landing
from pipelines.data.titles import make_titles
from pipelines.errors import DataError
from pipelines.lake import Lake
from pipelines.progress import progress

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DEFAULT_USERS = 2_000
DEFAULT_ITEMS = 1_500
DEFAULT_DAYS = 60
DEFAULT_SEED = 42

GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Children",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)

#: Events of a user who is there from the first day, on average.
EVENTS_PER_USER = 110
EVENTS_PER_VISIT = 8.0
#: Who is there from the start; the others join on later days, evenly.
_FOUNDING_USERS = 0.75
_FOUNDING_ITEMS = 0.85
_ZIPF_EXPONENT = 0.9
_ZIPF_SHIFT = 10.0
#: How few genres a user likes (the parameter of a Dirichlet distribution).
_TASTE_CONCENTRATION = 0.12
_SHARE_BY_TASTE = 0.8
#: A new item is this much more popular on its first day, and half as much so every week.
_NEWS_BOOST = 3.0
_NEWS_HALF_LIFE_DAYS = 7.0

_MEAN_RATING = 3.25
_QUALITY_SPREAD = 0.45
_KINDNESS_SPREAD = 0.4
_TASTE_WEIGHT = 1.5
_NOISE = 0.55

#: Each user's rated items, as a bitmap; exact for catalogues up to its size, else an item whose
#: bit is taken by another is passed over.
_SEEN_BITS = 2048
_ATTEMPTS = 4
_SECONDS_PER_DAY = 86_400
_RATINGS_AS_TEXT = pa.array([f"{half / 2:.1f}" for half in range(1, 11)])


@dataclass(frozen=True)
class SyntheticResult:
    """What was generated; days are UTC."""

    ratings: int
    users: int
    items: int
    first_day: date
    last_day: date
    landing: Path

    def __str__(self) -> str:
        return (
            f"{self.ratings:,} ratings by {self.users:,} users of {self.items:,} items in "
            f"{self.landing}: {self.first_day} to {self.last_day}"
        )


def generate(
    lake: Lake, users: int, items: int, days: int, seed: int, end_date: date
) -> SyntheticResult:
    """Write ``ratings/<day>.csv`` for `days` days up to `end_date`, and ``items/items.csv``.

    The same arguments give the same bytes. What the landing area held before is replaced when
    all is written.

    Raises:
        DataError: there is nothing to generate (a number below 1).
        OtherSourceError: the lake was made from another source.
    """
    if min(users, items, days) < 1:
        raise DataError("users, items and days must be at least 1")
    first_day = end_date - timedelta(days=days - 1)
    brought = SyntheticWorld(users=users, items=items, days=days, seed=seed, first_day=first_day)
    require_room_for(lake, brought)
    rng = np.random.default_rng(seed)
    world = _World(users, items, days, rng)
    total = 0
    with (
        new_landing(lake, Origin(brought=brought, last_day=end_date)) as folder,
        progress("synth", total=days, unit="days") as advance,
    ):
        _write_items(folder / "items" / "items.csv", world, first_day, rng)
        for number in range(days):
            day = first_day + timedelta(days=number)
            table = world.events_of(number, day, rng)
            _write_day(folder / "ratings", day, table)
            total += table.num_rows
            advance(1, f"{total:,} ratings")
    return SyntheticResult(total, users, items, first_day, end_date, Path(lake.landing))


def go_on(lake: Lake, until: date) -> int:
    """Let a synthetic data set in the landing area have all days up to `until`.

    The days that it has stay as they are, to the byte; in the new ones its users go on as before.
    Returns how many days were added: none if the landing area holds something else.
    """
    origin = Origin.of_landing(lake)
    if origin is None or not isinstance(origin.brought, SyntheticWorld):
        return 0
    if until <= origin.last_day:
        return 0
    made = origin.brought
    rng = np.random.default_rng(made.seed)
    world = _World(made.users, made.items, made.days, rng)
    folder = Path(lake.landing)
    # The titles and the days before are drawn again, so that what follows is drawn as it would be.
    _draw_titles(world, made.first_day, rng)
    days = (until - made.first_day).days + 1
    with progress("synth", total=days, unit="days") as advance:
        for number in range(days):
            day = made.first_day + timedelta(days=number)
            table = world.events_of(number, day, rng)
            if day > origin.last_day:
                _write_day(folder / "ratings", day, table)
            advance(1)
    Origin(brought=made, last_day=until).save(lake.origin)
    return (until - origin.last_day).days


def _write_day(folder: Path, day: date, table: pa.Table) -> None:
    # Under a name that no reader takes for data, until it is whole.
    part = folder / f".{day}.csv"
    options = pa_csv.WriteOptions(quoting_style="none", quoting_header="none")
    with pa_csv.CSVWriter(str(part), table.schema, write_options=options) as writer:
        writer.write_table(table)
    part.replace(folder / f"{day}.csv")


class _World:
    """Users, items and tastes; arrays of shape (users, …) and (items, …)."""

    def __init__(self, users: int, items: int, days: int, rng: np.random.Generator) -> None:
        genres = len(GENRES)
        self.user_joins = _joining_days(users, days, _FOUNDING_USERS, rng)
        self.item_joins = _joining_days(items, days, _FOUNDING_ITEMS, rng)
        self.tastes = rng.dirichlet(np.full(genres, _TASTE_CONCENTRATION), size=users)
        self._taste_steps = np.cumsum(self.tastes, axis=1, dtype=np.float32)
        self.kindness = rng.normal(0, _KINDNESS_SPREAD, users)
        # Visits a day, unequal as everywhere: some come daily, many now and then.
        visits = rng.gamma(1.2, 1 / 1.2, users) * EVENTS_PER_USER / EVENTS_PER_VISIT / days
        self.visit_rate = np.minimum(visits, 0.9)

        self.genres = _item_genres(items, rng)
        self.quality = rng.normal(0, _QUALITY_SPREAD, items)
        rank = rng.permutation(items)
        # Good items are somewhat more popular, but popularity is mostly luck.
        self.popularity = np.exp(0.5 * self.quality) / (rank + _ZIPF_SHIFT) ** _ZIPF_EXPONENT
        self._seen = np.zeros((users, _SEEN_BITS // 8), dtype=np.uint8)

    def events_of(self, number: int, day: date, rng: np.random.Generator) -> pa.Table:
        """Return one day's events in the order of time."""
        visitors = self._visitors(number, rng)
        lengths = 1 + rng.poisson(EVENTS_PER_VISIT - 1, len(visitors))
        user = np.repeat(visitors, lengths)
        item = self._pick_items(user, number, rng)
        second = _times_of_day(lengths, rng)
        kept = item >= 0
        user, item, second = user[kept], item[kept], second[kept]
        halves = self._rate(user, item, rng)
        order = np.lexsort((item, user, second))
        midnight = int(datetime.combine(day, time.min, tzinfo=UTC).timestamp())
        columns = (
            pa.array(user[order] + 1),
            pa.array(item[order] + 1),
            _RATINGS_AS_TEXT.take(pa.array(halves[order] - 1)),
            pa.array(second[order] + midnight),
        )
        return pa.table(dict(zip(RATING_COLUMNS, columns, strict=True)))

    def _visitors(self, number: int, rng: np.random.Generator) -> Ints:
        comes = rng.random(len(self.visit_rate)) < self.visit_rate
        visitors = np.flatnonzero(
            (comes & (self.user_joins < number)) | (self.user_joins == number)
        )
        if len(visitors) == 0:
            # Every day has an event: if nobody happens to come, someone who has joined does.
            joined = np.flatnonzero(self.user_joins <= number)
            visitors = joined[rng.integers(len(joined), size=1)]
        return visitors

    def _pick_items(self, user: Ints, number: int, rng: np.random.Generator) -> Ints:
        """Return an item for each event, or -1 where the user has seen all that came up."""
        age = number - self.item_joins
        news = np.where(self.item_joins >= 0, _NEWS_BOOST * 0.5 ** (age / _NEWS_HALF_LIFE_DAYS), 0)
        weight = np.where(age >= 0, self.popularity * (1 + news), 0)
        overall = np.cumsum(weight)
        by_genre = np.cumsum(weight[:, None] * self.genres, axis=0).T
        item = np.full(len(user), -1, dtype=np.int64)
        pending = np.arange(len(user))
        for _ in range(_ATTEMPTS):
            found = self._draw(user[pending], overall, by_genre, rng)
            is_new = self._mark_seen(user[pending], found)
            item[pending[is_new]] = found[is_new]
            pending = pending[~is_new]
        if (item < 0).all():
            item[0] = self._draw(user[:1], overall, by_genre, rng)[0]
        return item

    def _draw(
        self, user: Ints, overall: Floats, by_genre: Floats, rng: np.random.Generator
    ) -> Ints:
        point = rng.random(len(user))
        item: Ints = np.searchsorted(overall, point * overall[-1], side="right")
        steps = self._taste_steps[user]
        level = rng.random((len(user), 1), dtype=np.float32) * steps[:, -1:]
        genre = np.minimum((steps <= level).sum(axis=1), len(GENRES) - 1)
        genre[rng.random(len(user)) >= _SHARE_BY_TASTE] = -1
        for g in np.flatnonzero(by_genre[:, -1] > 0):
            rows = np.flatnonzero(genre == g)
            item[rows] = np.searchsorted(by_genre[g], point[rows] * by_genre[g, -1], side="right")
        return np.minimum(item, len(self.popularity) - 1)

    def _mark_seen(self, user: Ints, item: Ints) -> npt.NDArray[np.bool_]:
        """Return which pairs are new, and remember them."""
        bit = item % _SEEN_BITS
        is_new: npt.NDArray[np.bool_] = (self._seen[user, bit >> 3] >> (bit & 7)) & 1 == 0
        _, first = np.unique(user * _SEEN_BITS + bit, return_index=True)
        is_first = np.zeros(len(user), dtype=bool)
        is_first[first] = True
        is_new &= is_first
        mask = np.left_shift(1, bit[is_new] & 7).astype(np.uint8)
        np.bitwise_or.at(self._seen, (user[is_new], bit[is_new] >> 3), mask)
        return is_new

    def _rate(self, user: Ints, item: Ints, rng: np.random.Generator) -> Ints:
        """Return ratings in half stars, 1 to 10."""
        # The square root keeps a user with one great love from finding all else worthless.
        meets = np.einsum("ij,ij->i", np.sqrt(self.tastes[user]), self.genres[item])
        stars = (
            _MEAN_RATING
            + self.quality[item]
            + self.kindness[user]
            + _TASTE_WEIGHT * (meets - 0.35)
            + rng.normal(0, _NOISE, len(user))
        )
        halves: Ints = np.clip(np.rint(stars * 2), 1, 10).astype(np.int64)
        return halves


def _joining_days(count: int, days: int, founding: float, rng: np.random.Generator) -> Ints:
    """Return on which day (from 0) each one joins, in order; -1 stands for long before.

    Unless all are founders, one joins on the last day.
    """
    founders = max(1, round(count * founding))
    later = np.sort(rng.integers(0, days, size=count - founders))
    if len(later):
        later[-1] = days - 1
    return np.concatenate([np.full(founders, -1), later])


def _item_genres(items: int, rng: np.random.Generator) -> Floats:
    """Return how much each item belongs to each genre, shape (items, genres); rows sum to 1."""
    # Genres are of unequal size, as in real catalogues.
    sizes = rng.dirichlet(np.full(len(GENRES), 3.0))
    scores = np.log(sizes) + rng.gumbel(size=(items, len(GENRES)))
    ranked = np.argsort(-scores, axis=1)
    number = rng.choice((1, 2, 3), size=items, p=(0.35, 0.45, 0.2))
    weights = np.zeros((items, len(GENRES)))
    shares = {1: (1.0,), 2: (0.65, 0.35), 3: (0.5, 0.3, 0.2)}
    for count, parts in shares.items():
        rows = np.flatnonzero(number == count)
        for place, part in enumerate(parts):
            weights[rows, ranked[rows, place]] = part
    return weights


def _times_of_day(lengths: Ints, rng: np.random.Generator) -> Ints:
    """Return seconds since midnight: visits start mostly in the evening, then go on for a while."""
    starts = np.clip(rng.normal(19, 4, len(lengths)) % 24, 0, 23) * 3600
    gaps = rng.integers(15, 120, size=int(lengths.sum()))
    elapsed = np.cumsum(gaps)
    before = np.concatenate([[0], elapsed[np.cumsum(lengths)[:-1] - 1]])
    seconds: Ints = np.repeat(starts.astype(np.int64) - before, lengths) + elapsed
    return np.minimum(seconds, _SECONDS_PER_DAY - 1)


def _draw_titles(
    world: _World, first_day: date, rng: np.random.Generator
) -> tuple[Ints, list[str]]:
    """Return each item's year and title."""
    joined = np.array([(first_day + timedelta(days=int(d))).year for d in world.item_joins])
    # Items that were there from the start are up to fifty years old, mostly recent.
    ages = np.where(world.item_joins >= 0, 0, rng.geometric(0.08, len(joined)) % 50)
    years = joined - ages
    return years, make_titles(years, rng)


def _write_items(path: Path, world: _World, first_day: date, rng: np.random.Generator) -> None:
    years, titles = _draw_titles(world, first_day, rng)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(ITEM_COLUMNS)
        for i, title in enumerate(titles):
            main_first = np.argsort(-world.genres[i], kind="stable")
            genres = "|".join(GENRES[g] for g in main_first if world.genres[i, g] > 0)
            writer.writerow([i + 1, title, genres, years[i]])
