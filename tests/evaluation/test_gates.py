"""The gates' rules, each as a table: what passes, what is refused, what can't be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.contract import DataSummary, IngestSummary, Reason
from pipelines.evaluation.data_gates import Volume, data_gates
from pipelines.evaluation.gates import GateResult, refusal
from pipelines.evaluation.list_gates import ListMeasures, list_gates, overlap_gate
from pipelines.evaluation.model_gates import champion_gates, model_gates, why_not_comparable
from pipelines.gates_config import (
    DataGatesConfig,
    GatesConfig,
    ListGatesConfig,
    MetricGateConfig,
    Tolerance,
)
from pipelines.models.base import Metric
from pipelines.models_config import UNITS

DAY = date(2026, 3, 1)
CHAMPION = 202602280001


def verdicts(gates: list[GateResult]) -> list[str]:
    return [gate.verdict for gate in gates]


def one_line(gates: list[GateResult]) -> None:
    assert len({gate.name for gate in gates}) == len(gates)
    for gate in gates:
        assert gate.reason
        assert "\n" not in gate.describe()
        assert GateResult.model_validate_json(gate.model_dump_json()) == gate


# --- data ---


def ingest(**changes: Any) -> IngestSummary:
    values: dict[str, Any] = {
        "run_date": DAY,
        "events_path": "e",
        "items_path": "i",
        "input_rows": 100,
        "accepted": 100,
        "accepted_on_run_date": 100,
        "quarantined": {},
        "exact_duplicates": 0,
        "earlier_rows": 0,
        "later_rows": 0,
        "days_written": 1,
        "unknown_items": 0,
        "items": 10,
        "repeated_items": 0,
        "rejected_items": 0,
        "users": None,
    }
    return IngestSummary.model_validate({**values, **changes})


DATA = DataGatesConfig(
    max_quarantined_share=0.1,
    max_duplicate_share=0.1,
    max_unknown_item_share=0.1,
    max_age_days=1.0,
    min_volume_ratio=0.5,
    max_volume_ratio=2.0,
)
#: A Wednesday.
RUN_DATE = date(2026, 3, 4)


def volume(
    on_run_date: int, before: Sequence[int], age_days: float = 0.5, *, complete: bool = True
) -> Volume:
    """The run date's events, and those of the days before it, the latest first."""
    trailing = {RUN_DATE - timedelta(days=n): rows for n, rows in enumerate(before, start=1)}
    return Volume(RUN_DATE, on_run_date, trailing, age_days, complete)


STEADY = volume(100, [100, 90, 110])


@pytest.mark.parametrize(
    ("taken_in", "volume", "refused"),
    [
        ({}, STEADY, ""),
        ({"quarantined": {Reason.MALFORMED_ROW: 10}}, STEADY, ""),
        ({"quarantined": {Reason.MALFORMED_ROW: 11}}, STEADY, "quarantined_share"),
        ({"exact_duplicates": 10}, STEADY, ""),
        ({"exact_duplicates": 11}, STEADY, "duplicate_share"),
        ({"unknown_items": 11}, STEADY, "unknown_item_share"),
        # Of the accepted events, not of the rows.
        ({"unknown_items": 6, "accepted": 50}, STEADY, "unknown_item_share"),
        ({}, volume(100, [100] * 3, 1.0), ""),
        ({}, volume(100, [100] * 3, 1.01), "age_days"),
        ({}, volume(100, [100] * 3, math.nan), "age_days"),
        ({}, volume(50, [100] * 3), ""),
        ({}, volume(49, [100] * 3), "min_volume_ratio"),
        ({}, volume(0, [100] * 3), "min_volume_ratio"),
        ({}, volume(200, [100] * 3), ""),
        ({}, volume(201, [100] * 3), "max_volume_ratio"),
        ({"input_rows": 0, "accepted": 0}, STEADY, ""),
    ],
)
def test_data(taken_in: dict[str, Any], volume: Volume, refused: str) -> None:
    gates = data_gates(ingest(**taken_in), volume, DATA)
    one_line(gates)
    assert {gate.group for gate in gates} == {"data"}
    assert {gate.name for gate in gates if gate.verdict == "refused"} == set(refused.split())
    assert "not_compared" not in verdicts(gates)


@pytest.mark.parametrize("days", [0, 1, 2])
def test_volume_needs_some_days_to_compare_with(days: int) -> None:
    gates = data_gates(ingest(), volume(1, [100] * days), DATA)
    assert verdicts(gates) == ["passed"] * 4 + ["not_compared"]
    assert refusal(gates) is None
    one_line(gates)


#: What everybody has who changes nothing.
DEFAULTS = DataGatesConfig()
#: Five busy days and a quiet weekend, over four weeks; the run date is a Wednesday.
WEEKS = [30 if (RUN_DATE - timedelta(days=n)).weekday() >= 5 else 144 for n in range(1, 29)]
#: As in a data set of a few users: some days have hundreds of events, some have one.
UNEVEN = [6, 7, 31, 3, 2, 1, 28, 23, 219, 171, 4, 16, 2, 7, 1, 7, 12, 1, 52, 4, 2, 137, 160, 11]


@pytest.mark.parametrize(
    ("on_run_date", "before", "refused"),
    [
        (144, WEEKS, ""),
        # The three hours of a night that were taken for a day, and a tenth of what is usual.
        (18, WEEKS, "min_volume_ratio"),
        (14, WEEKS, "min_volume_ratio"),
        # What a Sunday has is a fifth of a Wednesday.
        (30, WEEKS, ""),
        (1500, WEEKS, "max_volume_ratio"),
        # As many as on every day, but it is a Wednesday.
        (14, [144] * 10, "min_volume_ratio"),
        # One night like this one before does not make it usual, nor do three.
        (14, [14, *WEEKS[1:]], "min_volume_ratio"),
        (14, [14] * 3 + WEEKS[3:], "min_volume_ratio"),
        (14, [144, 150, 140], "min_volume_ratio"),
        # Days that differ by as much among themselves are no measure of one.
        (3, UNEVEN, ""),
        (300, UNEVEN, ""),
    ],
)
def test_the_default_bounds_catch_a_tenth_of_what_is_usual(
    on_run_date: int, before: list[int], refused: str
) -> None:
    gates = data_gates(ingest(), volume(on_run_date, before), DEFAULTS)
    one_line(gates)
    assert {gate.name for gate in gates if gate.verdict == "refused"} == set(refused.split())


def test_a_day_is_compared_with_its_weekday() -> None:
    sunday = RUN_DATE + timedelta(days=4)
    trailing = {RUN_DATE - timedelta(days=n): rows for n, rows in enumerate(WEEKS, start=1)}
    (gate,) = [
        gate
        for gate in data_gates(ingest(), Volume(sunday, 5, trailing, 0.5), DEFAULTS)
        if gate.name == "min_volume_ratio"
    ]
    assert gate.reason == (
        "volume_ratio is 0.1667, must be at least 0.2 of the median of 4 Sundays, 30 "
        "(gates.data.min_volume_ratio): 5 events on the run date: is the source whole and not "
        "doubled?"
    )


def test_where_days_differ_the_bound_says_that_it_is_wider() -> None:
    gates = data_gates(ingest(), volume(3, UNEVEN), DEFAULTS)
    (reason,) = [gate.reason for gate in gates if gate.name == "min_volume_ratio"]
    assert "wider than 0.2 as these days differ so" in reason
    strict = DEFAULTS.model_copy(update={"volume_deviations": 0})
    assert "min_volume_ratio" in (refusal(data_gates(ingest(), volume(1, UNEVEN), strict)) or "")


def test_a_part_of_a_day_is_not_compared() -> None:
    gates = data_gates(ingest(), volume(14, WEEKS, complete=False), DEFAULTS)
    assert verdicts(gates) == ["passed"] * 4 + ["not_compared"]
    assert "had not ended" in gates[-1].reason


@given(st.lists(st.integers(1, 10_000), min_size=3, max_size=28), st.integers(1, 10_000))
def test_what_is_usual_is_never_refused(before: list[int], rows: int) -> None:
    usual = [rows] * len(before)
    assert refusal(data_gates(ingest(), volume(rows, usual), DEFAULTS)) is None
    # Nor does anything stop at odd days.
    one_line(data_gates(ingest(), volume(rows, before), DEFAULTS))


def test_a_refusal_says_what_and_how_much_and_what_to_do() -> None:
    gates = data_gates(ingest(unknown_items=20), STEADY, DATA)
    assert refusal(gates) == (
        "unknown_item_share is 0.2, must be at most 0.1 (gates.data.max_unknown_item_share): "
        "the catalogue lacks items that have events: is it out of date?"
    )


# --- model ---


def metrics(value: float, higher: bool = True, **baselines: float) -> dict[str, Metric]:
    return {"m": Metric(value=value, baselines=baselines, higher_is_better=higher)}


@pytest.mark.parametrize(
    ("gate", "measured", "passes"),
    [
        ({"limit": 0.5}, metrics(0.5), True),
        ({"limit": 0.5}, metrics(0.499), False),
        ({"limit": 0.5}, metrics(0.499, higher=False), True),
        ({"limit": 0.5}, metrics(0.501, higher=False), False),
        ({"limit": 0.5}, metrics(math.nan), False),
        ({"limit": 0.5}, metrics(math.inf), False),
        ({"beats": {"b": 0.0}}, metrics(0.51, b=0.5), True),
        # As good as the baseline is not better.
        ({"beats": {"b": 0.0}}, metrics(0.5, b=0.5), False),
        ({"beats": {"b": 0.0}}, metrics(0.5, higher=False, b=0.5), False),
        ({"beats": {"b": 0.0}}, metrics(0.49, higher=False, b=0.5), True),
        ({"beats": {"b": 0.125}}, metrics(0.625, b=0.5), False),
        ({"beats": {"b": 0.125}}, metrics(0.626, b=0.5), True),
        ({"beats": {"b": -0.125}}, metrics(0.376, b=0.5), True),
        ({"beats": {"b": -0.125}}, metrics(0.624, higher=False, b=0.5), True),
        ({"beats": {"b": -0.125}}, metrics(0.375, b=0.5), False),
        ({"beats": {"b": 0.0}}, metrics(math.nan, b=0.5), False),
        ({"beats": {"b": 0.0}}, metrics(0.9, b=math.nan), False),
        ({"beats": {"b": 0.0}}, metrics(0.9), False),
        ({"beats": {"b": 0.0}}, {}, False),
        ({"limit": 0.5}, {}, False),
        ({}, {}, False),
        ({}, metrics(0.0), True),
        ({}, metrics(math.nan), False),
    ],
)
def test_metrics(gate: dict[str, Any], measured: dict[str, Metric], passes: bool) -> None:
    gates = model_gates("recs", measured, {"m": MetricGateConfig(**gate)})
    one_line(gates)
    assert (refusal(gates) is None) == passes
    assert "not_compared" not in verdicts(gates)


def test_any_metric_that_is_not_finite_is_refused_by_name() -> None:
    measured = {**metrics(1.0), "other": Metric(value=math.nan)}
    assert "other: not finite" in (refusal(model_gates("recs", measured, {})) or "")


@pytest.mark.parametrize(
    ("champion", "tolerance", "value", "higher", "verdict"),
    [
        (0.5, {}, 0.5, True, "passed"),
        (0.5, {}, 0.499, True, "refused"),
        (0.5, {}, 0.501, False, "refused"),
        (0.5, {"absolute": 0.125}, 0.375, True, "passed"),
        (0.5, {"absolute": 0.125}, 0.374, True, "refused"),
        (0.5, {"absolute": 0.125}, 0.625, False, "passed"),
        (0.5, {"relative": 0.5}, 0.25, True, "passed"),
        (0.5, {"relative": 0.5}, 0.249, True, "refused"),
        (0.5, {"relative": 0.25, "absolute": 0.125}, 0.25, True, "passed"),
        (-0.5, {"relative": 0.5}, -0.75, True, "passed"),
        (0.5, {"relative": 0.5}, math.nan, True, "refused"),
        (math.nan, {"relative": 0.5}, 0.5, True, "not_compared"),
        (None, {"relative": 0.5}, 0.5, True, "not_compared"),
    ],
)
def test_champion(
    champion: float | None, tolerance: dict[str, float], value: float, higher: bool, verdict: str
) -> None:
    config = {"m": MetricGateConfig(champion=Tolerance(**tolerance)), "n": MetricGateConfig()}
    values = {} if champion is None else {"m": champion}
    gates = champion_gates("recs", metrics(value, higher), CHAMPION, values, config)
    one_line(gates)
    assert verdicts(gates) == [verdict]
    assert str(CHAMPION) in gates[0].reason
    if verdict == "passed":
        assert gates[0].baseline == champion


SUMMARY = DataSummary(
    run_date=DAY,
    lake_id="a",
    rows=9,
    users=3,
    items=3,
    catalogue_items=3,
    first_day=DAY,
    last_day=DAY,
    positives=5,
    holdout="last_days",
    holdout_days=7,
    holdout_fraction=None,
    holdout_rows=3,
    holdout_users=3,
    set_aside_rows=0,
)
FRACTION = {"holdout": "last_fraction", "holdout_days": None, "holdout_fraction": 0.2}


@pytest.mark.parametrize(
    ("champion", "today", "reason"),
    [
        ({}, {}, ""),
        (FRACTION, FRACTION, ""),
        ({"run_date": DAY - timedelta(30)}, {}, ""),
        ({**FRACTION, "run_date": DAY - timedelta(1)}, FRACTION, ""),
        ({"run_date": DAY + timedelta(1)}, {}, "is after 2026-03-01"),
        ({**FRACTION, "run_date": DAY + timedelta(1)}, FRACTION, "is after 2026-03-01"),
        ({}, FRACTION, "was last_days 7, today's is last_fraction 0.2"),
        (FRACTION, {}, "was last_fraction 0.2, today's is last_days 7"),
        ({"holdout_days": 6}, {}, "was last_days 6, today's is last_days 7"),
        ({**FRACTION, "holdout_fraction": 0.1}, FRACTION, "was last_fraction 0.1"),
        ({"lake_id": "b"}, {}, "another lake"),
        ({"lake_id": None}, {}, "another lake"),
        ({"lake_id": None}, {"lake_id": None}, "another lake"),
    ],
)
def test_a_champion_that_may_have_seen_the_holdout_is_not_compared(
    champion: dict[str, Any], today: dict[str, Any], reason: str
) -> None:
    why = why_not_comparable(SUMMARY.model_copy(update=champion), SUMMARY.model_copy(update=today))
    assert (why is None) == (not reason)
    assert reason in (why or "")


# --- lists ---


@pytest.mark.parametrize(
    ("coverage", "top_share", "refused"),
    [
        (0.2, 0.5, ""),
        (0.1, 0.6, ""),
        (0.09, 0.5, "coverage"),
        (0.2, 0.61, "top_share"),
        (0.0, math.nan, "coverage top_share"),
    ],
)
def test_lists(coverage: float, top_share: float, refused: str) -> None:
    config = ListGatesConfig(min_coverage=0.1, max_top_share=0.6)
    gates = list_gates("recs", ListMeasures(coverage, top_share), config)
    one_line(gates)
    assert {gate.name for gate in gates if gate.verdict == "refused"} == set(refused.split())
    assert list_gates("recs", ListMeasures(coverage, top_share), ListGatesConfig()) == []


@pytest.mark.parametrize(
    ("overlap", "least", "verdict"),
    [
        (0.25, 0.25, "passed"),
        (0.24, 0.25, "refused"),
        (math.nan, 0.25, "refused"),
        (None, 0.25, "not_compared"),
        (0.1, None, "not_compared"),
    ],
)
def test_overlap(overlap: float | None, least: float | None, verdict: str) -> None:
    gate = overlap_gate("recs", overlap, CHAMPION, ListGatesConfig(min_overlap=least))
    one_line([gate])
    assert gate.verdict == verdict


# --- all ---

FINITE = st.floats(-1e6, 1e6)


@given(FINITE, FINITE, FINITE, FINITE, st.floats(-10, 10), st.booleans())
def test_a_better_value_never_turns_passed_into_refused(
    first: float, second: float, limit: float, other: float, margin: float, higher: bool
) -> None:
    worse, better = sorted((first, second), reverse=not higher)
    config = {
        "m": MetricGateConfig(
            limit=limit, beats={"b": margin}, champion=Tolerance(relative=abs(margin) / 10)
        )
    }

    def judged(value: float) -> list[GateResult]:
        measured = metrics(value, higher, b=other)
        return [
            *model_gates("recs", measured, config),
            *champion_gates("recs", measured, CHAMPION, {"m": other}, config),
        ]

    for before, after in zip(judged(worse), judged(better), strict=True):
        assert before.verdict == "refused" or after.verdict == "passed"


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 300), st.integers(0, 300))
def test_better_data_never_turn_passed_into_refused(
    bad: int, worse_bad: int, rows: int, other: int
) -> None:
    def judged(quarantined: int, on_run_date: int) -> list[GateResult]:
        taken_in = ingest(quarantined={Reason.MALFORMED_ROW: quarantined})
        return data_gates(taken_in, volume(on_run_date, [100] * 5), DATA)

    def nearness(count: int) -> float:
        return abs(math.log2(count / 100)) if count else math.inf

    few, many = sorted((bad, worse_bad))
    near, far = sorted((rows, other), key=nearness)
    if refusal(judged(many, far)) is None:
        assert refusal(judged(few, near)) is None


def test_the_defaults_name_metrics_that_the_units_have() -> None:
    models = GatesConfig().models
    assert set(models.recs) | set(models.embeddings) == {
        "ndcg_at_10",
        "recall_at_50",
        "recall_at_50_as_stored",
    }
    assert set(models.ctr_pmml) == set(models.embedding_mlp) == {"auc", "log_loss"}
    assert set(models.interest_ranker) == {"auc", "log_loss", "auc_as_stored"}
    assert set(type(models).model_fields) == set(UNITS)


def test_a_metric_that_is_not_finite_survives_json() -> None:
    for value in (math.nan, math.inf):
        again = Metric.model_validate_json(Metric(value=value).model_dump_json()).value
        assert math.isnan(again) == math.isnan(value)
        assert not math.isfinite(again)
