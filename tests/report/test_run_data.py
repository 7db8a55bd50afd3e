"""What a report says of the data of its run."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import PipelineConfig
from pipelines.data.contract import DayChange, IngestSummary, Reason
from pipelines.release.context import ReleaseContext
from tests.release.versions import USERS
from tests.report.pages import DAY, NASTY, content_of, plan_of, section, write
from tests.test_comparison import SUMMARY


def test_data_volumes_and_quarantined_rows(
    tables_only: ReleaseContext, config: PipelineConfig
) -> None:
    plan = plan_of("recs")
    lake = tables_only.settings.lake
    paths = lake.run(plan.version)
    IngestSummary(
        run_date=DAY,
        events_path="landing/ratings.csv",
        items_path="landing/items.csv",
        input_rows=12_345,
        accepted=12_300,
        accepted_on_run_date=90,
        quarantined={Reason.RATING_INVALID: 7, Reason.USER_ID_MISSING: 38},
        exact_duplicates=0,
        earlier_rows=0,
        later_rows=0,
        days_written=3,
        unknown_items=1,
        items=USERS,
        repeated_items=0,
        rejected_items=0,
        users=None,
        complete=False,
        changed_days={DAY - timedelta(days=2): DayChange(added=1200, replaced=1, removed=0)},
        too_late_rows={date(2026, 1, 5): 3, date(2026, 1, 7): 1},
        unreadable_days={DAY - timedelta(days=1): NASTY},
    ).save(paths.ingest_summary)
    SUMMARY.save(paths.data_summary)
    folder = Path(lake.quarantine) / f"dt={DAY}"
    folder.mkdir(parents=True)
    bad = [("rating_invalid", f"rating {n}", f"{n},{NASTY},{'x' * 500}") for n in range(7)]
    table = pa.table(dict(zip(("reason", "detail", "raw"), zip(*bad, strict=True), strict=True)))
    pq.write_table(table, folder / "part-0.parquet")
    html = write(tables_only, config, plan)
    assert "<script" not in html
    data = section(html, "Data")
    assert "12,345, 3 days written" in data
    assert "2026-03-01 had not ended when it was read" in data
    assert "read again 2026-02-27: 1,200 added, 1 replaced" in data
    assert "3 of 2026-01-05, 1 of 2026-01-07; ferry data reread" in data
    assert "not read 2026-02-28: &lt;script&gt;" in data
    assert "800, 2026-01-01 to 2026-03-01; 500 positive" in data
    quarantine = section(html, "Quarantined rows")
    assert "rating invalid 7 user id missing 38" in quarantine
    assert "rating invalid 7 of this day" in quarantine
    (found,) = content_of(tables_only, plan).quarantine
    assert [row.detail for row in found.examples] == [f"rating {n}" for n in range(5)]
    assert "x" * 201 not in html
    assert "x" * 150 in html
