"""From raw features to what the scorers take: the same rows for SavedModel and PMML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.features.schema import (
    FEATURES,
    GENRES,
    ITEM_FEATURES,
    ITEM_ID,
    NUMBERS,
    USER_FEATURES,
    USER_HISTORY,
    USER_ID,
    USER_RECENT_ITEMS,
)

#: Text inputs of the SavedModel; the others are float32.
TEXT_INPUTS = (USER_ID, ITEM_ID, *USER_RECENT_ITEMS, *GENRES)
INPUTS = (*TEXT_INPUTS, *NUMBERS)

#: Inputs of the light model that are vectors from Redis.
INTERESTS, ITEM_VECTOR = "interests", "item_vector"
VECTOR_INPUTS = (INTERESTS, ITEM_VECTOR)

Row = dict[str, Any]

_UNSEEN: Row = {name: 0 for name in NUMBERS if name.endswith("_count")}


def candidate_rows(
    user_id: str,
    user: Mapping[str, Any] | None,
    items: Mapping[str, Mapping[str, Any] | None],
) -> list[Row]:
    """Return one row of raw features per candidate item, in the order of `items`.

    Unknown users and items (None) get what training saw of the first event of one: counts of 0,
    every other feature missing.
    """
    user_part = {name: (user or _UNSEEN).get(name) for name in USER_FEATURES}
    rows = []
    for item_id, item in items.items():
        item_part = {name: (item or _UNSEEN).get(name) for name in ITEM_FEATURES}
        rows.append({USER_ID: user_id, ITEM_ID: item_id, **user_part, **item_part})
    return rows


def light_row(row: Mapping[str, Any], interests: Any, item_vector: Any) -> Row:
    """Return what the light model takes: both vectors, and of `row` the genres and numbers."""
    vectors = {INTERESTS: interests, ITEM_VECTOR: item_vector}
    return {**vectors, **{name: row[name] for name in (*GENRES, *NUMBERS)}}


def pmml_rows(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return only the features of each row; PMML takes None for a missing value."""
    return [{name: row.get(name) for name in FEATURES} for row in rows]


#: The values of one input, a row each: a text, a number, a list of texts or a vector.
Column = list[str] | list[float] | list[list[str]] | list[list[float]]


def serving_inputs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Return the rows as columns for the SavedModel: '' and NaN stand for missing values.

    All rows have the same names, and those are the columns. Histories are filled up with '' to the
    same length, of at least 1.
    """
    return {name: _column(name, [row.get(name) for row in rows]) for name in rows[0]}


def _column(name: str, values: list[Any]) -> Column:
    if name in TEXT_INPUTS:
        return ["" if value is None else str(value) for value in values]
    if name in VECTOR_INPUTS:
        return [[_number(component) for component in vector] for vector in values]
    if name == USER_HISTORY:
        lists = [[str(item) for item in history or []] for history in values]
        longest = max(1, *(len(items) for items in lists))
        return [items + [""] * (longest - len(items)) for items in lists]
    return [_number(value) for value in values]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def rank_inputs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Return rows of one user as columns for the signature that takes the user once."""
    user = serving_inputs(rows[:1])
    return {
        name: user[name] if is_user_input(name) else column
        for name, column in serving_inputs(rows).items()
    }


def is_user_input(name: str) -> bool:
    """Tell whether an input describes the user, so that it is the same for all candidates."""
    return name in (USER_ID, INTERESTS, USER_HISTORY, *USER_FEATURES)
