"""The report of a run: gathered, drawn as one self-contained page, and kept in object storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from pipelines.comparison import KINDS
from pipelines.config import PipelineConfig
from pipelines.errors import ReleaseError
from pipelines.models.base import Metric
from pipelines.release.context import ReleaseContext
from pipelines.release.history import (
    RunDateLine,
    is_champion,
    metric_history,
    metric_names,
    metric_series,
)
from pipelines.release.registry import Registry
from pipelines.report.content import RunContent, TaskTime, UnitContent, content_before, gather
from pipelines.report.page import render_page
from pipelines.report.plots import CalibrationPlot, LinePlot, calibration_plot, line_plot
from pipelines.report.samples import SampleUser, WayAnswer
from pipelines.run import RunPlan

__all__ = ["History", "TaskTime", "render", "write_run_report"]

_RUN_DATES = 30
_SLOWEST_TASKS = 15
#: Units that predict a probability; the others give lists or vectors.
_PREDICTING = frozenset(unit for unit, kind in KINDS.items() if kind == "scores")


def write_run_report(
    context: ReleaseContext, config: PipelineConfig, plan: RunPlan, tasks: Sequence[TaskTime]
) -> str:
    """Write the report of a run and return its key; writing it again replaces it.

    Any unit may have failed, been refused or be missing: the page says so.

    Raises:
        ServiceError: Redis or object storage does not answer.
    """
    before = content_before(context, plan)
    content = gather(context, config, plan, tasks, before)
    history = partial(_history, context.registry, plan.version)
    with ThreadPoolExecutor(len(plan.units) or 1) as pool:
        histories = list(pool.map(history, plan.units))
    html = render(content, dict(zip(map(str, plan.units), histories, strict=True)), before)
    return context.registry.put_report(plan.version, plan.run_id, html, content.model_dump_json())


@dataclass(frozen=True)
class History:
    """A unit's last run dates, oldest first, or why there are none."""

    lines: Sequence[RunDateLine] = ()
    missing: str = "no version of it was ever sealed"


def _history(registry: Registry, until: int, unit: str) -> History:
    try:
        return History(metric_history(registry, unit, _RUN_DATES, until))
    except ReleaseError as error:
        # A manifest that can't be read, of whatever day, must not cost the report.
        return History(missing=str(error))


@dataclass(frozen=True)
class _Change:
    """A value beside an earlier one; `better` is None where they are the same."""

    value: float
    before: float
    better: bool | None

    @classmethod
    def of(cls, metric: Metric, before: float) -> _Change:
        ahead = (metric.value - before) * (1 if metric.higher_is_better else -1)
        return cls(metric.value, before, None if ahead == 0 else ahead > 0)

    @property
    def difference(self) -> float:
        return self.value - self.before


@dataclass(frozen=True)
class _MetricRow:
    name: str
    metric: Metric
    baselines: Mapping[str, float]
    champion: _Change | None
    yesterday: _Change | None


@dataclass(frozen=True)
class _UnitView:
    """A unit with all that is drawn of it."""

    content: UnitContent
    rows: list[_MetricRow]
    day_before: RunDateLine | None
    history: History
    plots: list[LinePlot]
    calibration: CalibrationPlot | None

    @property
    def name(self) -> str:
        return self.content.unit

    @property
    def predicts(self) -> bool:
        return self.name in _PREDICTING


@dataclass(frozen=True)
class _ListChange:
    """Items that came to a user's list, and that went, since the report before."""

    user_id: str
    way: str
    came: list[str]
    went: list[str]
    kept: int

    @property
    def is_same(self) -> bool:
        return not self.came and not self.went


def render(
    content: RunContent,
    histories: Mapping[str, History],
    before: RunContent | None,
) -> str:
    """Return a run's report as one HTML page without external resources."""
    timed = sorted(
        ((task, task.seconds) for task in content.tasks if task.seconds is not None),
        key=lambda pair: -pair[1],
    )
    page = {
        "run": content,
        "units": [_view(unit, content, histories[unit.unit]) for unit in content.units],
        "before": before,
        "list_changes": _list_changes(content.samples, before.samples) if before else [],
        "coverage": [found for unit in content.units for found in _coverage(unit)],
        "bad_reasons": _bad_reasons(content),
        "slowest": timed[:_SLOWEST_TASKS],
        "run_dates": _RUN_DATES,
    }
    return render_page("run.html.jinja", page)


def _view(unit: UnitContent, run: RunContent, history: History) -> _UnitView:
    lines = history.lines
    earlier = [line for line in lines if line.run_date < run.run_date]
    day_before = earlier[-1] if earlier else None
    plots = [line_plot(metric_series(lines, name)) for name in metric_names(lines)]
    return _UnitView(
        content=unit,
        rows=[_row(name, metric, day_before) for name, metric in unit.outcome.metrics.items()],
        day_before=day_before,
        history=history,
        plots=[plot for plot in plots if plot],
        calibration=calibration_plot(unit.calibration),
    )


def _row(name: str, metric: Metric, day_before: RunDateLine | None) -> _MetricRow:
    champion = next((v for b, v in metric.baselines.items() if is_champion(b)), None)
    yesterday = day_before.value(name) if day_before else None
    return _MetricRow(
        name=name,
        metric=metric,
        baselines={b: v for b, v in metric.baselines.items() if not is_champion(b)},
        champion=None if champion is None else _Change.of(metric, champion),
        yesterday=None if yesterday is None else _Change.of(metric, yesterday),
    )


@dataclass(frozen=True)
class _Coverage:
    unit: str
    measure: str
    value: float
    beside: dict[str, float | None]


def _coverage(unit: UnitContent) -> list[_Coverage]:
    """Return how much of the catalogue is shown: of the evaluated lists, and of all lists."""
    found = []
    if metric := unit.outcome.metrics.get("coverage"):
        measure = "coverage of the holdout's lists"
        found.append(_Coverage(unit.unit, measure, metric.value, dict(metric.baselines)))
    for gate in unit.gates:
        if gate.group == "lists" and gate.value is not None:
            measure = f"{gate.name.replace('_', ' ')} of all lists"
            found.append(_Coverage(unit.unit, measure, gate.value, {"threshold": gate.threshold}))
    return found


def _bad_reasons(content: RunContent) -> dict[str, int]:
    """Return how many rows the whole ingest quarantined for each reason."""
    if content.ingest is None:
        return {found.reason: found.rows for found in content.quarantine}
    return {reason.value: rows for reason, rows in content.ingest.quarantined.items()}


def _list_changes(now: Sequence[SampleUser], then: Sequence[SampleUser]) -> list[_ListChange]:
    """Compare the lists of users that both reports have; what is ranked depends on them."""
    earlier = {sample.user_id: sample for sample in then}
    changes = []
    for sample in now:
        if sample.user_id not in earlier:
            continue
        was = earlier[sample.user_id]
        pairs = [(sample.recommended, was.recommended)]
        if sample.similar_to and was.similar_to:
            same = sample.similar_to.item_id == was.similar_to.item_id
            pairs += zip(sample.similar, was.similar, strict=False) if same else []
        changes += [
            _compare(sample.user_id, new, old)
            for new, old in pairs
            if new and old and new.way == old.way and not new.missing and not old.missing
        ]
    return changes


def _compare(user_id: str, new: WayAnswer, old: WayAnswer) -> _ListChange:
    titles = {item.item_id: item.title or item.item_id for item in (*old.items, *new.items)}
    is_now, was = ({item.item_id: None for item in answer.items} for answer in (new, old))
    return _ListChange(
        user_id=user_id,
        way=new.way,
        came=[titles[item] for item in is_now if item not in was],
        went=[titles[item] for item in was if item not in is_now],
        kept=len(is_now.keys() & was.keys()),
    )
