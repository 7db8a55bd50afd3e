"""The ``ferry`` commands that look at releases and change what is live."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pipelines.cli_output import JsonFlag, print_json, say
from pipelines.config import load_pipeline_config, load_settings
from pipelines.errors import FerryError, ReleaseError
from pipelines.models_config import UNITS, Unit
from pipelines.release.rules import known_unit

if TYPE_CHECKING:
    from pipelines.release.context import ReleaseContext

app = typer.Typer()
release_app = typer.Typer(help="Look at the versions of a unit.", no_args_is_help=True)
app.add_typer(release_app, name="release")

T = TypeVar("T")

UnitArgument = Annotated[
    Unit,
    typer.Argument(parser=known_unit, metavar="UNIT", help=f"One of {', '.join(UNITS)}."),
]
OptionalUnit = Annotated[
    Unit | None,
    typer.Argument(
        parser=known_unit, metavar="[UNIT]", help=f"One of {', '.join(UNITS)}; all without."
    ),
]


@contextmanager
def open_context() -> Iterator[ReleaseContext]:
    """Open what a command works with; its owner is the person at the terminal."""
    from pipelines.patience import Patience
    from pipelines.release.context import release_context

    settings = load_settings()
    config = load_pipeline_config(settings.config)
    owner = f"{getpass.getuser()}@{socket.gethostname()} (ferry, process {os.getpid()})"
    # Who sits at a terminal wants to know soon that a service hangs.
    with release_context(settings, config.release, owner, Patience.READER) as context:
        yield context


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """What is live: since when, data age and lake, size in Redis, replicas, gates, metrics."""
    from pipelines.cli_release_view import show_status
    from pipelines.release.origin import read_current_lake
    from pipelines.release.status import unit_status

    settings = load_settings()
    config = load_pipeline_config(settings.config)
    enabled, today = config.models.enabled_units(), config.data.calendar.day_of(datetime.now(UTC))
    lake = read_current_lake(settings.lake)
    with open_context() as context:
        known = [unit_status(context, unit, lake, today) for unit in UNITS]
    # A model that was never asked for is no news.
    units = [unit for unit in known if unit.live or unit.retired or unit.unit in enabled]
    if as_json:
        print_json([unit.model_dump(mode="json") for unit in units])
        return
    for unit in units:
        show_status(unit)


@release_app.command("list")
def list_versions(unit: UnitArgument, as_json: JsonFlag = False) -> None:
    """A unit's versions, newest first."""
    from pipelines.cli_release_view import show_versions
    from pipelines.release.status import version_lines

    with open_context() as context:
        lines = version_lines(context, unit)
    if as_json:
        print_json([line.model_dump(mode="json") for line in lines])
    else:
        show_versions(unit, lines)


@release_app.command("show")
def show(
    unit: UnitArgument,
    version: Annotated[
        int | None, typer.Argument(help="Without, the live one or what was retired.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """All about one version: data, gates, metrics, files, and when it was live."""
    from pipelines.cli_release_view import show_version
    from pipelines.release.state import retirement_behind, standing_state
    from pipelines.release.status import version_details

    with open_context() as context:
        if version is None:
            standing = standing_state(context, unit)
            last = retirement_behind(context, standing) or standing
            if last is None or last.version is None:
                raise ReleaseError(f"nothing of {unit} is live: name a version")
            version = last.version
        manifest = context.registry.sealed(unit, version)
        details = version_details(context, manifest)
    if as_json:
        print_json(details)
    else:
        show_version(manifest, details)


@app.command()
def rollback(
    unit: UnitArgument,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the history.")],
    to: Annotated[int | None, typer.Option(help="A version; the one before without.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make an earlier version live again: pointer, labels and vectors together."""
    from pipelines.cli_release_view import show_rollback
    from pipelines.release.rollback import roll_back
    from pipelines.release.runners import LocalRunner

    with open_context() as context:
        done = roll_back(context, unit, to, reason, LocalRunner())
    if as_json:
        print_json(done.model_dump(mode="json"))
    else:
        show_rollback(done)


@app.command()
def retire(
    unit: UnitArgument,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the history.")],
    as_json: JsonFlag = False,
) -> None:
    """Take a unit offline, until a rollback or a newer version makes it live again."""
    from pipelines.cli_release_view import show_retirement
    from pipelines.release.retire import retire as retire_unit

    with open_context() as context:
        done = retire_unit(context, unit, reason)
    if as_json:
        print_json(done.model_dump(mode="json"))
    else:
        show_retirement(done)


@app.command()
def restore(unit: OptionalUnit = None, as_json: JsonFlag = False) -> None:
    """Rebuild Redis and the model servers from object storage, without training."""
    from pipelines.release.restore import restore as restore_unit
    from pipelines.release.restore import was_ever_live
    from pipelines.release.runners import LocalRunner

    with open_context() as context:

        def act(name: Unit) -> list[str] | None:
            # Without a name only what can be restored is meant.
            if unit is None and not was_ever_live(context, name):
                return None
            return restore_unit(context, name, LocalRunner())

        _each_unit(unit, act, as_json, _say_lines)


@app.command()
def reconcile(unit: OptionalUnit = None, as_json: JsonFlag = False) -> None:
    """Finish or undo what a crash left half-way, and repair what Redis and the replicas lost."""
    from pipelines.release.restore import reconcile as reconcile_unit
    from pipelines.release.runners import LocalRunner

    with open_context() as context:
        _each_unit(
            unit, lambda name: reconcile_unit(context, name, LocalRunner()), as_json, _say_lines
        )


@app.command()
def verify(unit: UnitArgument, as_json: JsonFlag = False) -> None:
    """Check what is live like a release: files, counts, checksums, golden answers, replicas."""
    from pipelines.release.audit import audit

    with open_context() as context:
        _each_unit(unit, lambda name: audit(context, name), as_json, _say_lines)


@app.command()
def retention(
    unit: OptionalUnit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove versions that nothing needs any more, online and from object storage."""
    from pipelines.cli_release_view import show_removal
    from pipelines.release.retention import retain

    with open_context() as context:
        config = load_pipeline_config(context.settings.config).retention
        _each_unit(
            unit,
            lambda name: retain(context, name, config, dry_run=dry_run),
            as_json,
            lambda _, removal: show_removal(removal, dry_run=dry_run),
            to_json=lambda removal: removal.model_dump(mode="json"),
        )


def _say_lines(unit: Unit, lines: Sequence[str]) -> None:
    for line in lines or [f"{unit}: nothing to do"]:
        say(line)


def _each_unit(
    unit: Unit | None,
    act: Callable[[Unit], T | None],
    as_json: bool,
    show: Callable[[Unit, T], None],
    to_json: Callable[[T], Any] = lambda result: result,
) -> None:
    """Do something with one unit, or with all, and print what `act` returns (None: nothing).

    One that fails does not keep the others from it.

    Raises:
        ReleaseError: a unit failed; every failure is named. What was done is printed all the same.
    """
    done: dict[Unit, T] = {}
    failures: dict[Unit, str] = {}
    for name in [unit] if unit else UNITS:
        try:
            result = act(name)
        except FerryError as error:
            failures[name] = str(error)
            continue
        if result is not None:
            done[name] = result
    if as_json:
        results = {name: to_json(result) for name, result in done.items()}
        print_json({"units": results, "failures": failures})
    else:
        for name, result in done.items():
            show(name, result)
        if not done and not failures:
            say("nothing of any unit was ever live: there is nothing to restore")
    if failures:
        raise ReleaseError("; ".join(failures.values()))
