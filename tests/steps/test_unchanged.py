"""Runs that bring nothing new: real ingests of a small source, in front of what is live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pipelines.config import ReleaseConfig, Settings, load_pipeline_config
from pipelines.errors import IdleDayError, NoDataError, NothingToDoError
from pipelines.lake import Lake
from pipelines.models_config import Unit
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.inputs import INPUTS, RunInputs
from pipelines.run import RunPlan, make_version
from pipelines.steps import unchanged
from pipelines.steps.data import features_at_once, ingest_step
from pipelines.steps.ending import finish_step, report_step, require_success
from tests.data.landing import at, put_events, put_items
from tests.release.test_restore import empty_redis
from tests.release.versions import build, release
from tests.report.pages import section

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

UNITS: tuple[Unit, ...] = ("recs", "embeddings")
D0, D1, D2, IDLE = (date(2026, 3, 1) + timedelta(days=days) for days in (-2, -1, 0, 1))
EVENTS = (
    f"1,1,4.0,{at(D1)}",
    f"2,1,4.0,{at(D1, 9)}",
    # Of the first day of a history, a part may have been cut off: its rows are only added to.
    f"2,2,4.0,{at(D0)}",
    f"1,2,1.0,{at(D2)}",
    "3,1,3.0,soon",
)


class Ferry:
    """Runs of two units on a source with the whole history."""

    def __init__(self, spark: SparkSession, context: ReleaseContext, folder: Path) -> None:
        self.spark, self.context, self.folder = spark, context, folder
        self.settings = context.settings
        self.configure()
        put_items(self.settings.lake)
        put_events(self.settings.lake, *EVENTS)

    def configure(self, **sections: Any) -> None:
        data = {"events": {"path": "{landing}/ratings"}, "items": {"path": "{landing}/items"}}
        self.settings.config.write_text(yaml.safe_dump({"data": data, **sections}))

    def plan(self, day: date, attempt: int, **more: Any) -> RunPlan:
        version = make_version(day, attempt)
        content = {"run_date": day, "version": version, "run_id": f"run {version}", "units": UNITS}
        return RunPlan.model_validate({**content, "run_type": "manual", **more})

    def ingest(self, day: date, attempt: int, **more: Any) -> tuple[RunPlan, RunInputs]:
        plan = self.plan(day, attempt, **more)
        ingest_step(self.spark, self.settings, plan)
        inputs = RunInputs.of_run(self.settings.lake.run(plan.version))
        assert inputs is not None
        return plan, inputs

    def release(self, plan: RunPlan, unit: Unit, attempt: int) -> None:
        """Make a version live that sealed what entered it, as a build does."""
        config = load_pipeline_config(self.settings.config)
        paths = self.settings.lake.run(plan.version)
        manifest = release(self.context, self.folder, unit, attempt, self.folder, day=plan.run_date)
        assert manifest.version == plan.version
        entered = unchanged.inputs_to_seal(paths, config, unit)
        assert entered
        self.context.registry.seal(manifest.model_copy(update={"data": {INPUTS: entered}}))


@pytest.fixture
def ferry(
    spark: SparkSession, settings_for: Callable[..., Settings], tmp_path: Path
) -> Iterator[Ferry]:
    settings = settings_for(model_server=False, config=tmp_path / "pipeline.yaml")
    (tmp_path / "pipeline.yaml").write_text("")
    with release_context(settings, ReleaseConfig(golden_size=16), "a test") as context:
        yield Ferry(spark, context, tmp_path)


def test_what_has_nothing_new_is_left_live(ferry: Ferry, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first, inputs = ferry.ingest(D2, 1)
    assert inputs.unchanged == {}
    assert "recs is trained: nothing is live" in caplog.text
    for unit in UNITS:
        assert unchanged.reason_to_skip(ferry.settings, first, unit) is None
        ferry.release(first, unit, 1)

    # Read again, a day is written again.
    before = day_files(ferry.settings.lake, D2)
    again, inputs = ferry.ingest(D2, 2)
    assert day_files(ferry.settings.lake, D2) != before
    assert inputs.unchanged == dict.fromkeys(UNITS, first.version)
    features_at_once(ferry.spark, ferry.settings, again)
    assert not Path(ferry.settings.lake.run(again.version).data_summary).exists()
    skipped = unchanged.reason_to_skip(ferry.settings, again, None)
    assert skipped
    for unit in UNITS:
        reason = unchanged.reason_to_skip(ferry.settings, again, unit)
        assert reason is not None
        assert reason in skipped
        assert reason in caplog.text
    summary = finish_step(ferry.settings, again)
    require_success(summary)
    assert summary.idle is None
    assert [(u.outcome, u.version) for u in summary.units] == [("unchanged", first.version)] * 2
    report_step(ferry.settings, again, [])
    html = ferry.context.registry.report(again.version) or ""
    assert f"recs unchanged {first.version} nothing new since" in section(html, "Outcome")
    assert "the data was not judged: nothing is new" in section(html, "Gates")
    data = section(html, "Data")
    assert "accepted 1" in data
    assert "nothing is new: no features were computed" in data

    # A setting of one unit is news for that unit.
    ferry.configure(models={"embeddings": {"neighbours": 7}})
    third, inputs = ferry.ingest(D2, 3)
    assert inputs.unchanged == {"recs": first.version}
    assert "embeddings is trained: new since" in caplog.text
    assert unchanged.reason_to_skip(ferry.settings, third, None) is None
    ferry.configure()
    # What was built with other settings than the ingest knew is not taken for the same later.
    config = load_pipeline_config(ferry.settings.config)
    paths = ferry.settings.lake.run(third.version)
    assert unchanged.inputs_to_seal(paths, config, "embeddings") is None
    assert unchanged.inputs_to_seal(paths, config, "recs") == inputs.of("recs")
    assert finish_step(ferry.settings, third).units[1].outcome == "failed"

    # So is a late row, a row that was corrected, or another item, for all of them.
    for attempt, events, items in (
        (4, (*EVENTS, f"3,1,4.0,{at(D1, 10)}"), ()),
        (5, (EVENTS[0].replace("4.0", "4.5"), *EVENTS[1:]), ()),
        (6, EVENTS, ("1,One (1999),Drama|War,1999", "2,Two,Drama,")),
    ):
        put_events(ferry.settings.lake, *events)
        put_items(ferry.settings.lake, *items)
        assert ferry.ingest(D2, attempt)[1].unchanged == {}, attempt
    put_events(ferry.settings.lake, *EVENTS)
    put_items(ferry.settings.lake)
    assert ferry.ingest(D2, 7)[1].unchanged == dict.fromkeys(UNITS, first.version)
    assert ferry.ingest(D2, 8, training_days=2)[1].unchanged == {}


def test_a_day_without_events_is_passed_over_if_all_of_the_rest_is_live(ferry: Ferry) -> None:
    first, _ = ferry.ingest(D2, 1)
    ferry.release(first, "recs", 1)
    with pytest.raises(IdleDayError, match=r"no accepted event .* embeddings: nothing is live"):
        ferry.ingest(IDLE, 1)
    assert RunInputs.of_run(ferry.settings.lake.run(make_version(IDLE, 1))) is None
    ferry.release(first, "embeddings", 1)
    idle, inputs = ferry.ingest(IDLE, 2)
    assert inputs.idle is not None
    assert inputs.idle.startswith(f"no accepted event on {IDLE}")
    assert inputs.unchanged == dict.fromkeys(UNITS, first.version)
    summary = finish_step(ferry.settings, idle)
    assert summary.idle == inputs.idle
    assert {unit.outcome for unit in summary.units} == {"unchanged"}
    report_step(ferry.settings, idle, [])
    html = ferry.context.registry.report(idle.version) or ""
    assert f"nothing was taken in: {inputs.idle}" in section(html, "Data")

    with pytest.raises(NothingToDoError, match="is left out: no accepted event"):
        ferry.ingest(IDLE, 3, run_type="backfill")
    before = D0 - timedelta(days=1)
    for day, attempt, more in (
        (before, 1, {}),
        (IDLE, 4, {"activate": "always"}),
        (IDLE, 5, {"train_again": True}),
    ):
        with pytest.raises(IdleDayError, match="no accepted event"):
            ferry.ingest(day, attempt, **more)
    ferry.configure(operations={"skip_unchanged": False})
    with pytest.raises(IdleDayError, match=f"^no accepted event on {IDLE} in ") as off:
        ferry.ingest(IDLE, 6)
    assert "passed over" not in str(off.value)
    ferry.configure()
    # That of a day all rows are bad, or that an earlier day has got more, is no idleness.
    put_events(ferry.settings.lake, *EVENTS, f"1,1,99,{at(IDLE)}")
    with pytest.raises(NoDataError, match="quarantined: ") as error:
        ferry.ingest(IDLE, 7)
    assert not isinstance(error.value, IdleDayError)
    put_events(ferry.settings.lake, *EVENTS, f"3,1,4.0,{at(D1, 10)}")
    with pytest.raises(NoDataError) as error:
        ferry.ingest(IDLE, 8)
    assert not isinstance(error.value, IdleDayError)


def day_files(lake: Lake, day: date) -> set[str]:
    return {path.name for path in (Path(lake.ratings) / f"dt={day}").iterdir()}


def test_what_was_built_of_the_same_and_is_not_live_is_built_again(
    tables_only: ReleaseContext, tmp_path: Path
) -> None:
    def sealed(attempt: int, entered: dict[str, str] | None) -> None:
        manifest = build(tables_only, tmp_path, "recs", attempt, tmp_path)
        data = {INPUTS: entered} if entered else {}
        tables_only.registry.seal(manifest.model_copy(update={"data": data}))

    assert unchanged.live_inputs(tables_only, "recs") is None
    manifest = release(tables_only, tmp_path, "recs", 1, tmp_path)
    live = unchanged.live_inputs(tables_only, "recs")
    assert live is not None
    assert (live.version, live.inputs, live.since) == (manifest.version, None, {})
    sealed(2, {"the events": "1"})
    sealed(3, None)
    live = unchanged.live_inputs(tables_only, "recs")
    assert live is not None
    assert live.since == {
        manifest.version + 1: {"the events": "1"},
        manifest.version + 2: None,
    }
    empty_redis(tables_only)
    assert unchanged.live_inputs(tables_only, "recs") is None
