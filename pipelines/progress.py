"""Progress of long work: a bar on a terminal, plain lines in a log.

In a log each line is ``progress <what>: <done>/<total> <unit> (<percent>)``, at most one every
few seconds, so that a reader of the log, or the table of ``make run``, can show the last one.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

log = logging.getLogger("ferry.progress")

_SECONDS_BETWEEN_LINES = 2.0


class Advance(Protocol):
    """The function that advances a bar."""

    def __call__(self, amount: int = 1, note: str = "") -> None:
        """Add `amount` newly done units; `note` is shown behind the figures."""


def _text(what: str, done: int, total: int | None, unit: str, note: str) -> str:
    amount = f"{done:,}/{total:,} {unit} ({done / total:.0%})" if total else f"{done:,} {unit}"
    return f"progress {what}: {amount}{' ' + note if note else ''}"


@contextmanager
def progress(what: str, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
    """Show the progress of `what` while the block runs; yields the function that advances it."""
    done = 0
    if sys.stderr.isatty():
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        ) as bar:
            task = bar.add_task(f"{what} [{unit}]", total=total, note="")

            def advance_bar(amount: int = 1, note: str = "") -> None:
                bar.update(task, advance=amount, note=note)

            yield advance_bar
        return

    last_line = time.monotonic()
    last_note = ""

    def advance_log(amount: int = 1, note: str = "") -> None:
        nonlocal done, last_line, last_note
        done += amount
        last_note = note
        now = time.monotonic()
        if now - last_line >= _SECONDS_BETWEEN_LINES:
            last_line = now
            log.info(_text(what, done, total, unit, note))

    log.info(_text(what, 0, total, unit, ""))
    yield advance_log
    log.info(_text(what, done, total, unit, last_note))
