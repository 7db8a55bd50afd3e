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
    USER_ID,
    USER_RECENT_ITEMS,
)

#: Text inputs of the SavedModel; the others are float32.
TEXT_INPUTS = (USER_ID, ITEM_ID, *USER_RECENT_ITEMS, *GENRES)
INPUTS = (*TEXT_INPUTS, *NUMBERS)

Row = dict[str, Any]


def candidate_rows(
    user_id: str,
    user: Mapping[str, Any] | None,
    items: Mapping[str, Mapping[str, Any] | None],
) -> list[Row]:
    """Return one row of raw features per candidate item, in the order of `items`.

    Unknown users and items (None) get rows in which every feature is missing.
    """
    user_part = {name: (user or {}).get(name) for name in USER_FEATURES}
    rows = []
    for item_id, item in items.items():
        item_part = {name: (item or {}).get(name) for name in ITEM_FEATURES}
        rows.append({USER_ID: user_id, ITEM_ID: item_id, **user_part, **item_part})
    return rows


def pmml_rows(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return only the features of each row; PMML takes None for a missing value."""
    return [{name: row.get(name) for name in FEATURES} for row in rows]


def serving_inputs(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str] | list[float]]:
    """Return the rows as columns for the SavedModel: '' and NaN stand for missing values."""
    columns: dict[str, list[str] | list[float]] = {}
    for name in TEXT_INPUTS:
        columns[name] = ["" if row.get(name) is None else str(row[name]) for row in rows]
    for name in NUMBERS:
        columns[name] = [math.nan if row.get(name) is None else float(row[name]) for row in rows]
    return columns
