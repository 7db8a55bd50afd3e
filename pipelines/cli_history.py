"""``ferry history``: a unit's metrics by run date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli_output import JsonFlag, aligned, print_json, say
from pipelines.cli_release import UnitArgument, open_context
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.release.history import RunDateLine

#: A table that would be wider is parted; more metrics then follow below.
_WIDTH = 80


def history_command(
    unit: UnitArgument,
    metric: Annotated[
        list[str] | None, typer.Option(help="Only this metric; may be given again.")
    ] = None,
    last: Annotated[
        int | None, typer.Option(min=1, help="Only the newest run dates, this many.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a page with plots to this file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """A unit's metrics by run date, with what went live: also versions removed by now."""
    from pipelines.release.history import metric_history, metric_names

    with open_context() as context:
        lines = metric_history(context.registry, unit, last)
    names = metric_names(lines)
    if metric and lines:
        _require_known(unit, metric, names)
        names = [name for name in names if name in metric]
    if as_json:
        print_json([_shown(line, names) for line in lines])
    elif not lines:
        say(f"{unit} has no versions yet")
    else:
        _show(lines, names)
    if plot and lines:
        from pipelines.report.history import render

        try:
            plot.write_text(render(unit, lines, names), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--plot {plot} can't be written: {error.strerror}") from error
        typer.echo(f"{plot}: plots", err=as_json)


def _require_known(unit: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ConfigError(
            f"--metric {unknown[0]}: {unit} is not measured by it, but by {', '.join(names)}"
        )


def _shown(line: RunDateLine, names: Sequence[str]) -> dict[str, object]:
    content = line.model_dump(mode="json")
    content["metrics"] = {n: content["metrics"][n] for n in names if n in content["metrics"]}
    return content


def _show(lines: Sequence[RunDateLine], names: Sequence[str]) -> None:
    """Print a table, newest last; metrics that do not fit into its width get another one."""
    head = ["run date", "version", "live"]
    rows = [[str(line.run_date), str(line.version), _state(line)] for line in lines]
    columns = {
        name: ["-" if (v := line.value(name)) is None else f"{v:.4g}" for line in lines]
        for name in names
    }
    for number, chosen in enumerate(_parted(head, rows, columns)):
        if number:
            say("")
        cells = [
            [*row, *(columns[name][place] for name in chosen)] for place, row in enumerate(rows)
        ]
        titles, *texts = aligned([[*head, *chosen], *cells])
        say(titles, "bold")
        for line, text in zip(lines, texts, strict=True):
            say(text, "green" if line.was_live else "red" if line.refusal else None)


def _state(line: RunDateLine) -> str:
    return "yes" if line.was_live else "refused" if line.refusal else "no"


def _parted(
    head: Sequence[str], rows: Sequence[Sequence[str]], columns: dict[str, list[str]]
) -> list[list[str]]:
    """Return the metrics of each table, so that none is wider than a terminal."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    fixed = sum(widths) + 2 * (len(widths) - 1)
    tables: list[list[str]] = [[]]
    room = _WIDTH - fixed
    for name, cells in columns.items():
        width = 2 + max(len(name), *map(len, cells))
        if width > room and tables[-1]:
            tables.append([])
            room = _WIDTH - fixed
        tables[-1].append(name)
        room -= width
    return tables
