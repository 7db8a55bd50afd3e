"""Which lake a version was trained on, and whether that is the lake of this moment."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass

from pipelines.data.identity import current_lake_id
from pipelines.lake import Lake
from pipelines.release.manifest import Manifest

#: A remote lake that does not answer must not hold up those who ask what is live: its libraries try
#: for minutes, and keep the process from ending meanwhile. So a process of its own asks, which
#: takes half a second where the lake answers.
_SECONDS = 8.0
_ASK = """
import sys
from pipelines.data.identity import current_lake_id
from pipelines.lake import Lake
print(current_lake_id(Lake(sys.argv[1])) or "")
"""
_LONGEST_PROBLEM = 200


@dataclass(frozen=True)
class CurrentLake:
    """The lake of this moment: its id, None while it holds no data; or why it can't be read."""

    address: str
    lake_id: str | None = None
    problem: str | None = None


def read_current_lake(lake: Lake) -> CurrentLake:
    """Return which lake it is now; one that can't be read is told of in the answer."""
    try:
        lake_id = _ask_apart(lake.root) if "://" in lake.root else current_lake_id(lake)
    # Whatever it is, it is told: what is live can be said without the lake.
    except Exception as error:  # noqa: BLE001
        problem = textwrap.shorten(str(error), _LONGEST_PROBLEM, placeholder="…")
        return CurrentLake(lake.root, problem=problem or type(error).__name__)
    return CurrentLake(lake.root, lake_id)


def _ask_apart(root: str) -> str | None:
    command = [sys.executable, "-c", _ASK, root]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        asked = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"no answer within {_SECONDS:.0f} seconds") from error
    if asked.returncode:
        raise OSError((asked.stderr.strip().splitlines() or ["no reason given"])[-1])
    return asked.stdout.strip() or None


def lake_of(manifest: Manifest) -> str | None:
    """Return the id of the lake that a version was trained on.

    None if an earlier Ferry built it, or if it was not trained on a lake.
    """
    training = manifest.data.get("training")
    found = training.get("lake_id") if isinstance(training, dict) else None
    return str(found) if found else None


def are_of_different_lakes(one: Manifest, other: Manifest) -> bool:
    """Tell whether two versions are known to be trained on different lakes."""
    first, second = lake_of(one), lake_of(other)
    return first is not None and second is not None and first != second


def is_from_another_lake(manifest: Manifest, lake: CurrentLake) -> bool | None:
    """Tell whether a version was trained on data that the lake does not hold; None: unknown."""
    trained_on = lake_of(manifest)
    if trained_on is None or lake.problem:
        return None
    return trained_on != lake.lake_id


def lake_note(manifest: Manifest, lake: CurrentLake) -> str | None:
    """Return what a person ought to know about the lake of a live version, or None."""
    if lake_of(manifest) and lake.problem:
        return (
            f"whether it is from this lake is unknown: {lake.address} can't be read "
            f"({lake.problem})"
        )
    if is_from_another_lake(manifest, lake):
        return (
            f"from another lake: it was trained on data that {lake.address} does not hold; "
            f"'ferry retire {manifest.unit} --reason …' takes it offline, a newer version "
            "replaces it"
        )
    return None
