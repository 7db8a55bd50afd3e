from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from pipelines.data.contract import DataSummary, IngestSummary, Reason

INGESTED = IngestSummary(
    run_date=date(2024, 3, 1),
    events_path="in",
    items_path="items",
    input_rows=10,
    accepted=7,
    accepted_on_run_date=3,
    quarantined={Reason.RATING_INVALID: 2},
    exact_duplicates=1,
    earlier_rows=0,
    later_rows=4,
    days_written=2,
    unknown_items=0,
    items=5,
    repeated_items=0,
    rejected_items=0,
    users=None,
)


def test_a_summary_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "ingest.json"
    INGESTED.save(str(path))
    assert IngestSummary.load(str(path)) == INGESTED
    assert INGESTED.quarantined_rows == 2


def test_saving_again_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "ingest.json"
    INGESTED.save(str(path))
    INGESTED.model_copy(update={"items": 6}).save(str(path))
    assert IngestSummary.load(str(path)).items == 6
    assert [p.name for p in tmp_path.iterdir()] == ["ingest.json"]


def test_a_summary_that_was_never_saved_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DataSummary.load(str(tmp_path / "data.json"))
