"""The folder in the lake in which the tasks of a run hand over to each other."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from pydantic import ValidationError

from pipelines.lake import RunPaths
from pipelines.release.outcome import RunSummary

#: Folders of this many runs are kept for a look; the versions themselves are elsewhere.
_RUNS_KEPT = 3
#: A run that has not been touched for so long was killed, and nobody has gone on with it.
_ABANDONED_SECONDS = 3 * 86_400


def remove_old_runs(folder: Path, keep: int) -> None:
    """Remove the hand-over folders of all but the newest runs that are over.

    Several plans may do so at the same time.
    """
    others = [p for p in folder.glob("*") if p.name.isdigit() and int(p.name) != keep]
    over = sorted((int(path.name) for path in others if _is_over(path)), reverse=True)
    for version in over[_RUNS_KEPT - 1 :]:
        shutil.rmtree(folder / str(version), ignore_errors=True)


def _is_over(run: Path) -> bool:
    """Tell whether nothing goes on in a run's folder: what failed there may be repaired for days.

    Without a summary the run may be under way, as several days of a backfill are.
    """
    try:
        if time.time() - run.stat().st_mtime > _ABANDONED_SECONDS:
            return True
        summary = RunSummary.model_validate_json(Path(RunPaths(str(run)).summary).read_bytes())
    except (FileNotFoundError, ValidationError):
        return False
    return all(unit.outcome != "failed" for unit in summary.units)


def reopen(paths: RunPaths) -> None:
    """Note that a run is under way again, whose task was cleared after it had ended."""
    Path(paths.summary).unlink(missing_ok=True)
