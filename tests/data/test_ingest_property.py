"""Whatever the rows: nothing is lost, nothing is invented, each row is judged by the contract."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from pipelines.data.contract import Reason
from pipelines.data.ingest import ingest
from pipelines.lake import Lake
from tests.data.landing import D1, D2, D3, D4, at, config, put_events, put_items

IDS = st.one_of(
    st.integers(1, 4).map(str),
    st.sampled_from(["", " ", "abc", "1.0", "-3", " 2", "99999999999999999999", '"4"', "+1"]),
)
RATINGS = st.one_of(
    st.sampled_from(["0.5", "3.0", "5", "4.50"]),
    st.sampled_from(["", "0.49", "5.1", "NaN", "inf", "five", "1e0", "4f", "1e400"]),
)
TIMES = st.one_of(
    st.sampled_from([D1, D2, D3, D4]).flatmap(
        lambda day: st.sampled_from([str(at(day)), str(at(day, 86_399)), str(at(day)) + ".0"])
    ),
    st.sampled_from(["", "now", "0", "-1", str(at(D3) * 1000), "1e999"]),
)
ROWS = st.one_of(
    *[st.tuples(IDS, IDS, RATINGS, TIMES).map(",".join)] * 3,
    st.tuples(st.integers(1, 2), st.integers(1, 2), st.just(4), st.just(at(D2))).map(
        lambda row: ",".join(map(str, row))
    ),
    st.sampled_from(["1,2,3", f"1,2,3,{at(D2)},", "x", f'1,"2,3,{at(D2)}', "   "]),
)

Event = tuple[int, int, float, int]


def judge(line: str) -> Event | Reason | None:
    """The contract for one CSV row, in plain Python: an event, a reason, or None for no row."""
    if not line.strip():
        return None
    cells = line.replace('"4"', "4").split(",")
    if len(cells) != 4 or '"' in "".join(cells):
        return Reason.MALFORMED_ROW
    ids: list[int] = []
    for name, text in zip(("user_id", "item_id"), cells[:2], strict=True):
        if not text.strip():
            return Reason(f"{name}_missing")
        if not re.fullmatch(r"\s*[+-]?\d+\s*", text) or not -(2**63) <= int(text) < 2**63:
            return Reason(f"{name}_invalid")
        ids.append(int(text))
    rating = number(cells[2])
    if rating is None:
        return Reason.RATING_INVALID if cells[2] else Reason.RATING_MISSING
    if not math.isfinite(rating):
        return Reason.RATING_NOT_FINITE
    if not 0.5 <= rating <= 5.0:
        return Reason.RATING_OUT_OF_RANGE
    seconds = number(cells[3])
    if seconds is None:
        return Reason.TIMESTAMP_INVALID if cells[3] else Reason.TIMESTAMP_MISSING
    if not is_plausible(seconds):
        return Reason.TIMESTAMP_OUT_OF_RANGE
    return ids[0], ids[1], rating, int(seconds)


def number(text: str) -> float | None:
    return None if text.endswith("f") and text != "inf" else _float(text)


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def is_plausible(seconds: float) -> bool:
    return datetime(1971, 1, 1, tzinfo=UTC).timestamp() <= seconds < 4_102_444_800


def day_of_row(line: str, run_date: date) -> date:
    """The day of a row that is no event: its timestamp's, if it has a readable one."""
    cells = line.split(",")
    seconds = number(cells[3]) if judge(line) != Reason.MALFORMED_ROW else None
    if seconds is None or not is_plausible(seconds):
        return run_date
    return datetime.fromtimestamp(seconds, UTC).date()


def expected_counts(lines: list[str], run_date: date) -> dict[str, Any]:
    verdicts = [(judge(line), line) for line in lines]
    accepted: list[Event] = []
    reasons: Counter[Reason] = Counter()
    later = 0
    for verdict, line in verdicts:
        if verdict is None:
            continue
        if day_of_row(line, run_date) > run_date:
            later += 1
        elif isinstance(verdict, Reason):
            reasons[verdict] += 1
        else:
            accepted.append(verdict)
    return {
        "events": set(accepted),
        "quarantined": dict(reasons),
        "exact_duplicates": len(accepted) - len(set(accepted)),
        "later_rows": later,
        "input_rows": len(accepted) + sum(reasons.values()),
    }


@settings(
    max_examples=3,
    deadline=None,
    database=None,
    # Each example is a whole ingest; shrinking would take minutes.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(lines=st.lists(ROWS, min_size=60, max_size=120))
def test_every_row_is_accepted_quarantined_or_an_exact_duplicate(
    spark: SparkSession, lines: list[str]
) -> None:
    lines = [*lines, f"1,1,4,{at(D3)}"]
    with TemporaryDirectory() as folder:
        lake = Lake(str(Path(folder)))
        put_items(lake)
        put_events(lake, *lines)
        summary = ingest(spark, config(), lake, D3)
        found = spark.read.parquet(lake.ratings).selectExpr(
            "user_id", "item_id", "rating", "unix_seconds(timestamp)"
        )
        events = [tuple(row) for row in found.collect()]
        quarantined: Counter[str] = Counter()
        if Path(lake.quarantine).exists():
            reasons = spark.read.parquet(lake.quarantine).select("reason").collect()
            quarantined.update(row["reason"] for row in reasons)
    expected = expected_counts(lines, D3)
    assert set(events) == expected["events"]
    assert len(events) == len(set(events)) == summary.accepted
    assert summary.quarantined == expected["quarantined"] == dict(quarantined)
    assert summary.exact_duplicates == expected["exact_duplicates"]
    assert summary.later_rows == expected["later_rows"]
    assert summary.input_rows == expected["input_rows"]
    total = summary.accepted + summary.quarantined_rows + summary.exact_duplicates
    assert summary.input_rows == total
