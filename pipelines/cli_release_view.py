"""How the ``ferry`` commands show releases to a person: 80 columns are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.filesize import decimal

from pipelines.cli_output import aligned, say, say_wrapped
from pipelines.evaluation.gates import GateResult
from pipelines.models.base import Metric
from pipelines.release.desired import Retirement
from pipelines.release.manifest import Manifest
from pipelines.release.retention import Removal
from pipelines.release.rollback import Rollback
from pipelines.release.status import UnitStatus, VersionLine
from pipelines.wording import age, counted, verdict_counts

_STATE_STYLES = {
    "live": "green",
    "refused": "red",
    "rolled back": "red",
    "retired": "red",
    "unsealed": "dim",
}
_VERDICT_STYLES = {"refused": "red", "not_compared": "yellow", "passed": "green"}


def show_status(status: UnitStatus) -> None:
    """Print what is live of a unit."""
    live = status.live
    if live is None:
        say(f"{status.unit}: nothing is live", "bold")
    else:
        say(f"{status.unit} {live.version}, live since {_second(live.since)}", "bold")
    if status.retired:
        _field("retired", f"{status.retired.version} was {status.retired.text}", "yellow")
    if status.lake_note:
        _field("lake", status.lake_note, "yellow")
    if live and live.previous:
        _field("before", str(live.previous))
    if status.data_date and status.data_age_days is not None:
        _field("data", f"to {status.data_date}, {age(status.data_age_days)}")
    if status.why:
        _field("by", f"{status.who}: {status.why}")
    if status.rows:
        tables = ", ".join(f"{name} {rows:,}" for name, rows in status.rows.items())
        _field("Redis", f"{decimal(status.redis_bytes)}; rows: {tables}")
    for address, state in status.replicas.items():
        if state == "AVAILABLE":
            _field("replica", f"{address} {state}")
        else:
            _field("replica", state, "red")
    if status.gates:
        _field("gates", verdict_counts(status.gates))
    _metric_fields(status.metrics)
    for problem in status.problems:
        _field("problem", problem, "red")


def show_versions(unit: str, lines: Sequence[VersionLine]) -> None:
    """Print a unit's versions, each with the reason for its state below it."""
    if not lines:
        say(f"{unit} has no versions yet")
        return
    head = ("version", "state", "run", "built (UTC)", "first metric")
    rows = [
        (
            str(line.version),
            line.state,
            line.run_type or "",
            f"{line.created_at:%Y-%m-%d %H:%M}" if line.created_at else "",
            next((f"{name} {metric.value:.4g}" for name, metric in line.metrics.items()), ""),
        )
        for line in lines
    ]
    titles, *texts = aligned([head, *rows])
    say(titles, "bold")
    for line, text in zip(lines, texts, strict=True):
        say(text, _STATE_STYLES.get(line.state))
        if line.reason:
            say_wrapped(line.reason, "    ", "dim")


def show_version(manifest: Manifest, details: Mapping[str, Any]) -> None:
    """Print all about one version; `details` as of :func:`pipelines.release.status`."""
    say(f"{manifest.unit} {manifest.version}: {details['state']}", "bold")
    if details["reason"]:
        say_wrapped(details["reason"], "  ", "red")
    _field("run", f"{manifest.run_type}, {manifest.run_id}")
    _field("data", f"to {manifest.run_date}")
    _field("built", f"{_second(manifest.created_at)} by Ferry {manifest.code_version}")
    size = decimal(sum(entry.size for entry in manifest.files))
    _field("stored", f"{size} in {counted(len(manifest.files), 'file')}")
    for meta in manifest.tables:
        rows, buckets = counted(meta.rows, "row"), counted(meta.buckets, "bucket")
        _field("table", f"{meta.name}: {rows} in {buckets}")
    _metric_fields(manifest.metrics)
    if manifest.champion:
        _field("against", f"{manifest.champion}, which was live, on the same holdout")
    for verdict, style in _VERDICT_STYLES.items():
        _show_gates(verdict, [g for g in manifest.gates if g.verdict == verdict], style)
    if details["moves"]:
        say("moves")
    for move in details["moves"]:
        at = _second(datetime.fromisoformat(move["at"]))
        to = move["version"] or "nothing"
        kind = move["kind"].replace("_", " ")
        say_wrapped(f"{at} {kind} to {to} by {move['who']}: {move['why']}", "  ")


def _show_gates(verdict: str, gates: Sequence[GateResult], style: str) -> None:
    if not gates:
        return
    say(f"{counted(len(gates), 'gate')} {verdict.replace('_', ' ')}", style)
    head = ("gate", "value", "threshold", "baseline")
    rows = [
        (f"{gate.group}: {gate.name}", *map(_number, (gate.value, gate.threshold, gate.baseline)))
        for gate in gates
    ]
    titles, *texts = aligned([head, *rows])
    say(f"  {titles}", "dim")
    for gate, text in zip(gates, texts, strict=True):
        say(f"  {text}")
        if verdict != "passed":
            say_wrapped(gate.reason, "      ", "dim")


def show_rollback(done: Rollback) -> None:
    """Print what a rollback did."""
    again = ", staged again from object storage" if done.staged_again else ""
    instead = f" instead of {done.replaced}" if done.replaced else ", nothing was before"
    say(f"{done.unit} {done.version} is live{instead}{again}")
    for problem in done.problems:
        _field("not yet", problem, "red")


def show_retirement(done: Retirement) -> None:
    """Print what a retirement did."""
    say(f"nothing of {done.unit} is live instead of {done.version}")
    say_wrapped(f"'ferry rollback {done.unit} --reason …' makes it live again", "  ", "dim")


def show_removal(removal: Removal, *, dry_run: bool) -> None:
    """Print what retention removed, or would remove."""
    kept = f"{counted(len(removal.kept), 'version')} kept"
    if removal.is_empty:
        say(f"{removal.unit}: nothing to remove, {kept}")
        return
    say(f"{removal.unit}: {'would remove' if dry_run else 'removed'}; {kept}")
    places = {
        "from Redis": removal.redis,
        "from the model servers": removal.loaded,
        "from their disk": removal.disk,
        "from object storage": removal.object_storage,
        "never sealed": removal.leftovers,
    }
    width = max(map(len, places))
    for place, versions in places.items():
        if versions:
            say_wrapped(", ".join(map(str, versions)), f"  {place:<{width}} ")


def _metric_fields(metrics: Mapping[str, Metric]) -> None:
    for number, (name, metric) in enumerate(metrics.items()):
        _field("" if number else "metrics", f"{name} {metric.describe()}")


def _field(label: str, text: str, style: str | None = None) -> None:
    say_wrapped(text, f"  {label:<8} ", style)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _second(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
