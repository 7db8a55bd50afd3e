"""Shows a run while it goes on: a table on a terminal, a line for each change in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

_COLOURS = {
    "success": "green",
    "failed": "bold red",
    "up_for_retry": "red",
    "upstream_failed": "red",
    "running": "cyan",
    "skipped": "yellow",
}
_SECONDS_BETWEEN_LINES = 5.0
#: States of tasks that have ended without having run; Airflow gives them a duration all the same.
NOT_RUN = ("upstream_failed", "skipped", "removed")
FINISHED = ("success", "failed", *NOT_RUN)


@dataclass(frozen=True)
class TaskRow:
    """One task as it is shown."""

    task_id: str
    state: str
    seconds: float | None
    note: str = ""


class RunView(Protocol):
    """Shows the rows each time they may have changed; use it as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, rows: Sequence[TaskRow]) -> None:
        """Show the present state of all tasks."""


def run_view(console: Console) -> RunView:
    """Return the view that suits where the output goes."""
    return TableView(console) if sys.stdout.isatty() else LineView()


def clock(seconds: float) -> str:
    """Return a duration as ``mm:ss``."""
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


class TableView:
    """One row a task, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, rows: Sequence[TaskRow]) -> None:
        """Redraw the table."""
        finished = sum(row.state in FINISHED for row in rows)
        title = f"{clock(time.monotonic() - self._began)}  {finished} of {len(rows)} tasks done"
        table = Table("task", "state", "time", title=title, title_justify="left", box=None)
        table.add_column("", no_wrap=True, overflow="ellipsis")
        for row in rows:
            colour = _COLOURS.get(row.state, "dim")
            took = "" if row.seconds is None else clock(row.seconds)
            note = escape(row.note.partition("\n")[0])
            table.add_row(row.task_id, f"[{colour}]{row.state}[/]", took, note)
        self._live.update(table)


class LineView:
    """One line whenever a task changes its state, and now and then for its progress."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._states: dict[str, str] = {}
        self._notes: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def show(self, rows: Sequence[TaskRow]) -> None:
        """Print what has changed."""
        now = time.monotonic()
        for row in rows:
            note, printed_at = self._notes.get(row.task_id, ("", 0.0))
            changed = self._states.get(row.task_id, "waiting") != row.state
            is_due = not note or now - printed_at >= _SECONDS_BETWEEN_LINES
            moved = row.note != note and is_due
            if not changed and not moved:
                continue
            self._states[row.task_id] = row.state
            self._notes[row.task_id] = (row.note, now)
            took = "" if row.seconds is None else f" {row.seconds:.1f}s"
            first_line = row.note.partition("\n")[0]
            line = f"[{clock(now - self._began)}] {row.task_id} {row.state}{took} {first_line}"
            print(line.rstrip(), flush=True)
