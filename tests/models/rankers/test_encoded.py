"""Samples as numbers: the same numbers as in the graph, every row once, in an order of the seed."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.features.schema import NUMBERS
from pipelines.models.rankers import encoded, samples
from pipelines.models.rankers.encoded import (
    EncodedSamples,
    Shape,
    columns,
    encode_lists,
    encode_words,
    named,
)
from pipelines.models.rankers.samples import FITTING, HOLDOUT, TRAINING, VALIDATION, Samples
from tests.models.world import KINDS, USERS, World

WORDS = ["a", "b", "é", "9", "-1"]


@given(st.lists(st.sampled_from([*WORDS, "", None, "unknown"]), max_size=30))
@settings(deadline=None, max_examples=30)
def test_words_get_the_numbers_of_keras_lookups(words: list[str | None]) -> None:
    from pipelines.models.rankers.inputs import _lookup

    vocabulary = pa.array(WORDS)
    numbers = encode_words(pa.array(words, pa.string()), vocabulary)
    assert numbers.dtype == np.int32
    lookup = _lookup(vocabulary, "word")
    assert numbers.tolist() == [int(lookup(word or "")) for word in words]


@given(st.lists(st.one_of(st.none(), st.lists(st.sampled_from([1, 2, 3, 99]), max_size=6))))
@settings(deadline=None, max_examples=30)
def test_lists_are_cut_and_padded(lists: list[list[int] | None]) -> None:
    column = pa.chunked_array([pa.array(lists, pa.list_(pa.int64()))])
    found = encode_lists(column, pa.array([3, 1, 2]), 4)
    number = {3: 2, 1: 3, 2: 4, 99: 1}
    expected = [[number[i] for i in (ids or [])[:4]] for ids in lists]
    assert found.tolist() == [row + [0] * (4 - len(row)) for row in expected]


def keys(data: EncodedSamples, seed: int | None, passes: int = 1) -> list[list[tuple[Any, ...]]]:
    """Return (user, item, label) of every row, for each pass."""
    parts = [list(data.parts(64, seed, number)) for number in range(passes)]
    return [
        [
            # The encoded inputs begin with the user and the item.
            (*(int(number) for number in row["ids"][:2]), float(row["label"]))
            for part in parts_of_pass
            for row in part
        ]
        for parts_of_pass in parts
    ]


@pytest.mark.parametrize("window", [100, samples.WINDOW_ROWS])
def test_every_chosen_row_comes_once_in_an_order_that_the_seed_gives(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(encoded, "WINDOW_ROWS", window)
    source = Samples(str(world.root / "samples"))
    statistics, shape = source.statistics(TRAINING, 1000), Shape.of(None)
    data = EncodedSamples.write(source, TRAINING, statistics, shape, tmp_path, 7)
    assert data.rows == 15 * USERS
    assert len(list(tmp_path.iterdir())) == (6 if window == 100 else 1)
    (plain,) = keys(data, None)
    first, second = keys(data, 1, passes=2)
    assert Counter(first) == Counter(second) == Counter(plain)
    assert len(set(plain)) == 15 * USERS
    assert first != second
    assert [first, second] == keys(data, 1, passes=2)
    assert first != keys(data, 2)[0]


def test_slices_do_not_overlap(world: World) -> None:
    source = Samples(str(world.root / "samples"))
    sizes = {name: source.count(c) for name, c in (("v", VALIDATION), ("f", FITTING))}
    assert sizes == {"v": 3 * USERS, "f": 12 * USERS}
    assert source.count(HOLDOUT) == 5 * USERS
    assert source.count(None) == 20 * USERS


def test_a_row_is_encoded_as_the_served_model_encodes_it(
    string_world: World, tmp_path: Path
) -> None:
    from pipelines.models.rankers.export import tensors
    from pipelines.models.rankers.inputs import Encoder, raw_names

    source = Samples(str(string_world.root / "samples"))
    statistics = source.statistics(TRAINING, 20)
    for length in (None, 4):
        shape = Shape.of(length)
        folder = tmp_path / str(length)
        folder.mkdir()
        data = EncodedSamples.write(source, None, statistics, shape, folder, 0)
        (part,) = data.parts(10_000)
        ids, numbers, labels = columns(part)
        batch = named(ids, numbers, shape)
        rows = [row for t in source.tables(None, raw_names(shape)) for row in t.to_pylist()]
        raw = tensors(rows, raw_names(shape))
        encoder = Encoder(statistics, shape)
        for name, ids in {**encoder.user(raw), **encoder.item(raw)}.items():
            assert batch[name].numpy().tolist() == ids.numpy().tolist(), name
        expected = np.stack([raw[name] for name in NUMBERS], axis=1)
        np.testing.assert_array_equal(batch["numbers"], expected)
        assert labels.tolist() == [
            label for t in source.tables(None, ["label"]) for label in t["label"].to_pylist()
        ]


def test_statistics_are_those_of_the_chosen_rows(world: World) -> None:
    source = Samples(str(world.root / "samples"))
    everything = source.statistics(None, 1000)
    assert everything.users.type == pa.int64()
    assert len(everything.users) == USERS
    assert len(everything.items) == len(KINDS)
    assert set(everything.genres.to_pylist()) == {"Film", "Taste 0", "Taste 1", "Hit", "Dud"}
    few, many = (source.statistics(TRAINING, size).items.to_pylist() for size in (3, 1000))
    assert few == many[:3]
    years = [row["release_year"] for row in source.head(10**6, ["release_year"])]
    known = [year for year in years if year is not None]
    place = 5  # Of release_year in NUMBERS.
    assert everything.mean[place] == pytest.approx(np.mean(known))
    assert everything.variance[place] == pytest.approx(np.var(known))


def test_raw_columns_say_what_is_missing(world: World) -> None:
    source = Samples(str(world.root / "samples"))
    names = ("user_rated_1", "user_rating_mean", "item_id", "release_year", "user_history")
    table = next(iter(source.tables(None, names)))
    raw = samples.raw_columns(table, names)
    assert raw["user_rated_1"][0] == ""
    assert math.isnan(raw["user_rating_mean"][0])
    assert raw["item_id"].dtype == object
    assert raw["release_year"].dtype == np.float32
    longest = max(len(ids) for ids in table["user_history"].to_pylist())
    assert raw["user_history"].shape == (len(table), longest)
    assert set(raw["user_history"][0]) == {""}
