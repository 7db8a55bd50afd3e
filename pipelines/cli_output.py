"""What the ``ferry`` commands share: the --json option and how results are printed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# Tables are as wide as their content, also when the output is no terminal.
console = Console(soft_wrap=True, highlight=False)


def print_json(content: Any) -> None:
    """Print `content` as JSON, readable and with every character as it is."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2))


def say(text: str, style: str | None = None) -> None:
    """Print a line as it is."""
    console.print(text, style=style, markup=False)


def say_wrapped(text: str, first: str, style: str | None = None) -> None:
    """Print `text` behind `first`, broken at spaces to the console's width and kept aligned."""
    lines = textwrap.wrap(
        text,
        max(40, console.width),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        say(line, style)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row, with the columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
