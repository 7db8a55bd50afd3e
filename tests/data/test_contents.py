"""Digests of days and tables: of their rows alone, however these are written."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.contents import day_contents, table_content
from pipelines.lake import Lake

DAY, NEXT = date(2026, 3, 1), date(2026, 3, 2)
SCHEMA = pa.schema(
    {
        "user_id": pa.int64(),
        "item_id": pa.string(),
        "rating": pa.float64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
)
ITEMS = pa.schema(
    {
        "item_id": pa.string(),
        "title": pa.string(),
        "genres": pa.list_(pa.string()),
        "release_year": pa.int32(),
    }
)
Row = tuple[Any, ...]

events = st.tuples(
    st.integers(-3, 3),
    st.sampled_from(["a", "é", ""]),
    st.sampled_from([0.5, 4.0]),
    st.integers(0, 3).map(lambda second: datetime(2026, 3, 1, 0, 0, second, tzinfo=UTC)),
)
items = st.tuples(
    st.none() | st.text(max_size=2),
    st.none() | st.lists(st.none() | st.sampled_from("AB"), max_size=2),
    st.none() | st.integers(1990, 1991),
)


def write(folder: Path, schema: pa.Schema, rows: Sequence[Row], order: random.Random) -> None:
    """Write rows in any order, in one or more files of any row groups."""
    folder.mkdir(parents=True)
    rows = order.sample(list(rows), len(rows))
    cut = order.randint(0, len(rows))
    for number, part in enumerate((rows[:cut], rows[cut:])):
        columns = list(zip(*part, strict=True)) or [()] * len(schema)
        table = pa.table(list(map(list, columns)), schema=schema)
        name = f"part-{order.random()}-{number}.parquet"
        pq.write_table(table, folder / name, row_group_size=order.randint(1, 3))
    (folder / "_SUCCESS").touch()


def content(schema: pa.Schema, keys: tuple[str, ...], rows: Sequence[Row], seed: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "table", schema, rows, random.Random(seed))
        return table_content(f"{folder}/table", keys)


@given(
    one=st.sets(events, max_size=6),
    other=st.sets(events, max_size=6),
    seeds=st.tuples(st.integers(), st.integers()),
)
def test_events_are_the_same_if_their_rows_are(
    one: set[Row], other: set[Row], seeds: tuple[int, int]
) -> None:
    keys = tuple(SCHEMA.names)
    first = content(SCHEMA, keys, sorted(one), seeds[0])
    assert content(SCHEMA, keys, sorted(one), seeds[1]) == first
    assert (content(SCHEMA, keys, sorted(other), seeds[1]) == first) == (one == other)


@given(
    one=st.dictionaries(st.sampled_from("xyz"), items),
    other=st.dictionaries(st.sampled_from("xyz"), items),
    seeds=st.tuples(st.integers(), st.integers()),
)
def test_catalogues_are_the_same_if_their_items_are(
    one: dict[str, Row], other: dict[str, Row], seeds: tuple[int, int]
) -> None:
    def of(catalogue: dict[str, Row], seed: int) -> str:
        rows = [(item, *row) for item, row in catalogue.items()]
        return content(ITEMS, ("item_id",), rows, seed)

    first = of(one, seeds[0])
    assert of(one, seeds[1]) == first
    assert (of(other, seeds[1]) == first) == (one == other)


def test_only_days_with_other_files_are_read(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    rows = [(1, "a", 4.0, datetime(2026, 3, 1, tzinfo=UTC))]
    for day in (DAY, NEXT):
        write(Path(lake.ratings) / f"dt={day}", SCHEMA, rows, random.Random(1))
    before = day_contents(lake, {DAY: "its files", NEXT: "files"})
    assert before[DAY] == before[NEXT]
    folder = Path(lake.ratings) / f"dt={NEXT}"
    folder.rename(tmp_path / "old")
    # Nobody looks at them.
    (Path(lake.ratings) / f"dt={DAY}").rename(tmp_path / "away")
    write(folder, SCHEMA, [(2, *rows[0][1:])], random.Random(2))
    after = day_contents(lake, {DAY: "its files", NEXT: "other files"})
    assert after[DAY] == before[DAY]
    assert after[NEXT] != before[NEXT]
    # What is kept only saves time.
    (Path(lake.ratings) / "_contents.json").write_text('{"da')
    assert day_contents(lake, {NEXT: "other files"}) == {NEXT: after[NEXT]}
