"""What a task's log says: how far it is, why it failed, and why it was skipped.

Airflow writes one JSON object a line; what a Spark step prints arrives as the event of such a line.
"""

from __future__ import annotations

import json
import re
from collections import deque
from pathlib import Path
from typing import Any

_PROGRESS = re.compile(r"\bprogress (\S.*)")
_TAIL_BYTES = 200_000
_LINES_SHOWN = 10
#: Errors that we raise ourselves say all there is to say; others are shown with their type.
_SELF_EXPLAINING = ("AirflowException", "AirflowFailException", "AirflowTaskTimeout")


def log_file(airflow_home: Path, dag_id: str, run_id: str, task_id: str, attempt: int) -> Path:
    """Return where Airflow keeps the log of one attempt of a task."""
    return (
        airflow_home
        / "logs"
        / f"dag_id={dag_id}"
        / f"run_id={run_id}"
        / f"task_id={task_id}"
        / f"attempt={attempt}.log"
    )


def _entries(log: Path) -> list[dict[str, Any]]:
    """Return the last lines of a log; a line that is still being written is left out."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    # Where the tail begins within a line, that line is no JSON; what follows the last newline
    # is not complete.
    whole = lines[1:-1] if size > _TAIL_BYTES else lines[:-1]
    return [_parse(line) for line in whole if line.strip()]


def _parse(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        entry = None
    return entry if isinstance(entry, dict) else {"event": line}


def progress_of(log: Path) -> str | None:
    """Return the latest progress line of a task, without the word itself."""
    for entry in reversed(_entries(log)):
        if found := _PROGRESS.search(str(entry.get("event", ""))):
            return found[1].strip()
    return None


def skip_reason_of(log: Path) -> str | None:
    """Return why a task skipped itself; None where another task had it skipped."""
    for entry in reversed(_entries(log)):
        if entry.get("event") == "Skipping task.":
            return str(entry.get("reason", "")) or None
    return None


def error_of(log: Path) -> str:
    """Return why an attempt failed: the message of its exception; with what was logged just
    before where the message alone says little.
    """
    before: deque[str] = deque(maxlen=_LINES_SHOWN)
    found: tuple[str, list[str]] | None = None
    for entry in _entries(log):
        event = str(entry.get("event", ""))
        if details := entry.get("error_detail"):
            # The exception that ended the task stands first, its causes follow.
            kind, message = details[0]["exc_type"], str(details[0]["exc_value"]).strip()
            found = (message if kind in _SELF_EXPLAINING else f"{kind}: {message}", list(before))
        elif not event.startswith("::"):
            before.append(event)
    if found is None:
        return "\n".join(
            ["no exception in its log; was its process killed? It ends with:", *before]
        )
    message, lines = found
    if message.startswith("Cannot execute:"):
        return "\n".join(["its process failed; the log before that:", *lines])
    return message
