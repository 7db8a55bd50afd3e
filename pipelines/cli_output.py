"""What the ``ferry`` commands share: the --json option and how results are printed."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# Tables are as wide as their content, also when the output is no terminal.
console = Console(soft_wrap=True, highlight=False)


def print_json(content: Any) -> None:
    """Print `content` as JSON, readable and with every character as it is."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2))
