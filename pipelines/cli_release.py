"""The ``ferry`` commands that look at releases and change what is live."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipelines.cli_output import JsonFlag, console, print_json
from pipelines.config import UNITS, Unit, load_pipeline_config, load_settings
from pipelines.errors import FerryError, ReleaseError
from pipelines.release.rules import known_unit

if TYPE_CHECKING:
    from pipelines.release.context import ReleaseContext
    from pipelines.release.status import UnitStatus, VersionLine

app = typer.Typer()
release_app = typer.Typer(help="Look at the versions of a unit.", no_args_is_help=True)
app.add_typer(release_app, name="release")

UnitArgument = Annotated[str, typer.Argument(help=f"One of {', '.join(UNITS)}.")]
OptionalUnit = Annotated[
    str | None, typer.Argument(help=f"One of {', '.join(UNITS)}; all without.")
]


@contextmanager
def _context() -> Iterator[ReleaseContext]:
    from pipelines.release.context import release_context

    settings = load_settings()
    config = load_pipeline_config(settings.config)
    owner = f"{getpass.getuser()}@{socket.gethostname()} (ferry, process {os.getpid()})"
    with release_context(settings, config.release, owner) as context:
        yield context


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """What is live: since when, data age, size in Redis, replicas, gates, metrics."""
    from pipelines.release.status import unit_status

    with _context() as context:
        units = [unit_status(context, unit) for unit in UNITS]
    if as_json:
        print_json([unit.model_dump(mode="json") for unit in units])
        return
    for unit in units:
        _print_status(unit)


def _print_status(status: UnitStatus) -> None:
    if status.live is None:
        console.print(f"[bold]{status.unit}[/]: nothing is live")
    else:
        previous = f", before it {status.live.previous}" if status.live.previous else ""
        console.print(
            f"[bold]{status.unit}[/] {status.live.version}, live since "
            f"{status.live.since:%Y-%m-%d %H:%M:%S} UTC{previous}"
        )
    lines = []
    if status.data_date:
        lines.append(f"data to {status.data_date}, {status.data_age_days} days old")
    if status.why:
        lines.append(f"by {status.who}: {status.why}")
    if status.rows:
        rows, size = sum(status.rows.values()), status.redis_bytes / 1e6
        lines.append(f"{rows:,} rows, {size:.1f} MB in Redis")
    lines += [f"{replica}: {state}" for replica, state in status.replicas.items()]
    if status.gates:
        verdicts = [gate.verdict for gate in status.gates]
        counts = [f"{verdicts.count(v)} {v.replace('_', ' ')}" for v in dict.fromkeys(verdicts)]
        lines.append(f"gates: {', '.join(counts)}")
    lines += [f"{name} {metric.describe()}" for name, metric in status.metrics.items()]
    for line in lines:
        console.print(f"  {escape(line)}")
    for problem in status.problems:
        console.print(f"  [red]problem:[/] {escape(problem)}")


@release_app.command("list")
def list_versions(unit: UnitArgument, as_json: JsonFlag = False) -> None:
    """A unit's versions, newest first."""
    from pipelines.release.status import version_lines

    with _context() as context:
        lines = version_lines(context, known_unit(unit))
    if as_json:
        print_json([line.model_dump(mode="json") for line in lines])
    elif lines:
        console.print(_version_table(unit, lines))
    else:
        console.print(f"{unit} has no versions yet")


def _version_table(unit: str, lines: Sequence[VersionLine]) -> Table:
    table = Table("version", "state", "run", "metrics", title=unit, title_justify="left")
    for line in lines:
        metrics = [f"{name} {metric.value:.4g}" for name, metric in line.metrics.items()][:3]
        cells = [str(line.version), line.state, line.run_type or "", "\n".join(metrics)]
        if line.reason:
            cells[1] += f": {line.reason}"
        table.add_row(*map(escape, cells))
    return table


@release_app.command("show")
def show_version(
    unit: UnitArgument,
    version: Annotated[int | None, typer.Argument(help="The live one without.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """All about one version: data, gates, metrics, files, and when it was live."""
    from pipelines.release.status import version_details

    with _context() as context:
        unit = known_unit(unit)
        if version is None:
            pointer = context.online.pointers.get(unit)
            if pointer is None:
                raise ReleaseError(f"nothing of {unit} is live: name a version")
            version = pointer.version
        details = version_details(context, unit, version)
        manifest = context.registry.sealed(unit, version)
    if as_json:
        print_json(details)
        return
    console.print(
        f"[bold]{unit}[/] {version}, {manifest.run_type} run {escape(manifest.run_id)}, built "
        f"{manifest.created_at:%Y-%m-%d %H:%M} UTC by Ferry {manifest.code_version}"
    )
    size = sum(entry.size for entry in manifest.files)
    console.print(f"  {len(manifest.files)} files, {size / 1e6:.1f} MB")
    for meta in manifest.tables:
        console.print(f"  table {meta.name}: {meta.rows:,} rows in {meta.buckets:,} buckets")
    for name, metric in manifest.metrics.items():
        console.print(f"  {escape(f'{name} {metric.describe()}')}")
    for gate in manifest.gates:
        colour = {"passed": "green", "refused": "red"}.get(gate.verdict, "yellow")
        verdict = gate.verdict.replace("_", " ")
        console.print(f"  gate {gate.name}: [{colour}]{verdict}[/], {escape(gate.reason)}")
    for move in details["moves"]:
        line = f"{move['at']} {move['kind']} to {move['version']} by {move['who']}: {move['why']}"
        console.print(f"  {escape(line)}")


@app.command()
def rollback(
    unit: UnitArgument,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the history.")],
    to: Annotated[int | None, typer.Option(help="A version; the one before without.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make an earlier version live again: pointer, labels and vectors together."""
    from pipelines.release.rollback import roll_back
    from pipelines.release.runners import LocalRunner

    with _context() as context:
        done = roll_back(context, known_unit(unit), to, reason, LocalRunner())
    if as_json:
        print_json(done.model_dump(mode="json"))
        return
    again = ", staged again from object storage" if done.staged_again else ""
    console.print(f"{unit} {done.version} is live instead of {done.replaced}{again}")
    for problem in done.problems:
        console.print(f"  [red]not yet:[/] {escape(problem)}")


def _each_unit(
    unit: str | None,
    act: Callable[[Unit], list[str]],
    as_json: bool,
    skip: Callable[[Unit], bool] | None = None,
) -> None:
    """Do something with one unit, or with all; one that fails does not keep the others from it.

    Raises:
        ReleaseError: a unit failed; every failure is named.
    """
    done: dict[str, list[str]] = {}
    failures: list[str] = []
    units: Sequence[Unit] = [known_unit(unit)] if unit else UNITS
    for name in units:
        if skip and skip(name):
            continue
        try:
            done[name] = act(name)
        except FerryError as error:
            if unit:
                raise
            failures.append(str(error))
    if as_json:
        print_json({"units": done, "failures": failures})
    else:
        for acted, lines in done.items():
            for line in lines or [f"{acted}: nothing to do"]:
                console.print(escape(line))
    if failures:
        raise ReleaseError("; ".join(failures))


@app.command()
def restore(unit: OptionalUnit = None, as_json: JsonFlag = False) -> None:
    """Rebuild Redis and the model servers from object storage, without training."""
    from pipelines.release.restore import restore as restore_unit
    from pipelines.release.runners import LocalRunner

    with _context() as context:
        _each_unit(
            unit,
            lambda name: restore_unit(context, name, LocalRunner()),
            as_json,
            skip=None if unit else lambda name: context.registry.active(name) is None,
        )


@app.command()
def reconcile(unit: OptionalUnit = None, as_json: JsonFlag = False) -> None:
    """Finish or undo what a crash left half-way, and repair what Redis and the replicas lost."""
    from pipelines.release.restore import reconcile as reconcile_unit
    from pipelines.release.runners import LocalRunner

    with _context() as context:
        _each_unit(unit, lambda name: reconcile_unit(context, name, LocalRunner()), as_json)


@app.command()
def verify(unit: UnitArgument, as_json: JsonFlag = False) -> None:
    """Check what is live like a release: files, counts, checksums, golden answers, replicas."""
    from pipelines.release.audit import audit

    with _context() as context:
        _each_unit(known_unit(unit), lambda name: audit(context, name), as_json)


@app.command()
def retention(
    unit: OptionalUnit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove versions that nothing needs any more, online and from object storage."""
    from pipelines.release.retention import retain

    with _context() as context:
        config = load_pipeline_config(context.settings.config).retention
        names = [known_unit(unit)] if unit else UNITS
        removals = [retain(context, name, config, dry_run=dry_run) for name in names]
    if as_json:
        print_json([removal.model_dump(mode="json") for removal in removals])
        return
    for removal in removals:
        places = removal.model_dump(include=_PLACES)
        gone = [f"{p.replace('_', ' ')} {v}" for p, versions in places.items() for v in versions]
        verb = "would remove" if dry_run else "removed"
        what = ", ".join(gone) or "nothing"
        console.print(f"{removal.unit}: {verb} {what}; {len(removal.kept)} versions kept")


_PLACES = {"redis", "loaded", "disk", "object_storage", "leftovers"}
