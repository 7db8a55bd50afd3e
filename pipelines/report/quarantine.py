"""Quarantined rows of one day, by reason, with a few of them to look at."""

from __future__ import annotations

from collections import Counter

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict

from pipelines.data.contract import DAY, filesystem_of
from pipelines.lake import Lake
from pipelines.run import RunPlan

_EXAMPLES = 5
_LONGEST = 200


class BadRow(BaseModel):
    """One quarantined row, cut to a readable length: what is wrong with it, and its text."""

    model_config = ConfigDict(frozen=True)

    detail: str
    raw: str


class QuarantinedRows(BaseModel):
    """All rows that were quarantined for one reason, and the first of them."""

    model_config = ConfigDict(frozen=True)

    reason: str
    rows: int
    examples: list[BadRow]


def quarantined_rows(lake: Lake, plan: RunPlan) -> list[QuarantinedRows]:
    """Return the quarantined rows of the run date, the most frequent reason first.

    Reads batch by batch, so that a day of nothing but bad rows fits too. A day without any has no
    folder: that is an empty list.
    """
    filesystem, folder = filesystem_of(f"{lake.quarantine}/{DAY}={plan.run_date}")
    try:
        rows = ds.dataset(folder, filesystem=filesystem, format="parquet")
    except FileNotFoundError:
        return []
    if not rows.files:
        return []
    counts: Counter[str] = Counter()
    examples: dict[str, list[BadRow]] = {}
    for batch in rows.to_batches(columns=["reason", "detail", "raw"]):
        reasons = batch.column("reason").to_pylist()
        counts.update(reasons)
        for place, reason in enumerate(reasons):
            kept = examples.setdefault(reason, [])
            if len(kept) < _EXAMPLES:
                detail, raw = (batch.column(name)[place].as_py() for name in ("detail", "raw"))
                kept.append(BadRow(detail=_cut(detail), raw=_cut(raw)))
    return [
        QuarantinedRows(reason=reason, rows=count, examples=examples[reason])
        for reason, count in counts.most_common()
    ]


def _cut(text: str | None) -> str:
    shown = text or ""
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
