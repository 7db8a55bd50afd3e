"""What enters a version, and whether a run has anything new for a unit. Pure rules.

A version's inputs are named digests: of the events and the catalogue, of the settings that concern
its unit, of Ferry's code and of the packages that it is installed with. They are sealed with the
version. A run whose inputs are those of the live version would train the same model again.

What a run date changes by itself has no part in them: which days are held out, how old an event
counts, whose turn it is to be explored.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pipelines
from pipelines.config import PipelineConfig
from pipelines.data.contract import StoredModel
from pipelines.lake import RunPaths
from pipelines.models_config import Unit
from pipelines.release.manifest import Manifest
from pipelines.run import RunPlan

#: Digests by what they are of, in words: they stand in messages.
Inputs = Mapping[str, str]

#: Where a manifest's data has the inputs.
INPUTS = "inputs"
_CODE = ("the code", "the installed packages")


class RunInputs(StoredModel):
    """What enters the versions of one run, and which units have nothing new (``inputs.json``)."""

    #: Of the lake, as the run's features have it.
    data: dict[str, str]
    #: Of settings and code, by unit.
    settings: dict[str, dict[str, str]]
    #: Units that are not trained, with the live version that has the same inputs.
    unchanged: dict[str, int]
    #: Why there was nothing to ingest; None: there was.
    idle: str | None = None

    @classmethod
    def of_run(cls, paths: RunPaths) -> RunInputs | None:
        """Return what was noted of a run; None before its ingest has ended."""
        try:
            return cls.load(paths.inputs)
        except FileNotFoundError:
            return None

    @property
    def has_nothing_new(self) -> bool:
        """Whether no unit of the run is trained."""
        return self.settings.keys() <= self.unchanged.keys()

    def of(self, unit: str) -> Inputs:
        """Return all inputs of one unit."""
        return {**self.data, **self.settings[unit]}

    def reason(self, unit: str) -> str | None:
        """Return why a unit is not trained, or None: it is."""
        since = self.unchanged.get(unit)
        if since is None:
            return None
        return (
            f"nothing new since {since}, which stays live: {unit} is not trained again "
            "(operations.skip_unchanged)"
        )

    def reasons(self) -> list[str]:
        """Return the reason of each unit that is not trained."""
        return [reason for unit in self.settings if (reason := self.reason(unit))]


@dataclass(frozen=True)
class LiveInputs:
    """The live version of a unit and what entered it; None: it is not known.

    `since` are the newer versions that are sealed, and what entered these.
    """

    version: int
    inputs: Inputs | None
    since: Mapping[int, Inputs | None]


def digest(content: Any) -> str:
    """Return a digest of what JSON can hold."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def settings_inputs(config: PipelineConfig, unit: Unit) -> dict[str, str]:
    """Return the inputs of a unit that are no data.

    All settings count but those of other units and those that no version depends on.
    """
    content = config.model_dump(mode="json", exclude={"operations", "retention"})
    content["models"] = content["models"][unit]
    for part in ("models", "lists"):
        content["gates"][part] = content["gates"][part].get(unit)
    for name in ("load_timeout_seconds", "memory_reserve"):
        del content["release"][name]
    return {"the settings": digest(content), **dict(zip(_CODE, _code_digests(), strict=True))}


@functools.cache
def _code_digests() -> tuple[str, str]:
    packages = [platform.python_version(), *sorted(importlib.metadata.requires("ferry") or ())]
    return tree_digest(Path(pipelines.__file__).parent), digest(packages)


def tree_digest(folder: Path) -> str:
    """Return a digest of all files below a folder but those that Python makes itself."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return digest(
        {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in found
            if "__pycache__" not in path.parts
        }
    )


def sealed_inputs(manifest: Manifest) -> Inputs | None:
    """Return what entered a version; None: an earlier Ferry made it, or it is not known."""
    found = manifest.data.get(INPUTS)
    return found if isinstance(found, dict) and found else None


def why_train(
    plan: RunPlan, inputs: Inputs, live: LiveInputs | None, *, skip_unchanged: bool
) -> str | None:
    """Return why a run trains a unit, or None: what is live would stay as good as it is.

    A run that was asked for something else than what is newest does it, whatever is live.
    """
    if not skip_unchanged:
        return "operations.skip_unchanged is off"
    if plan.train_again:
        return "the run was asked to train also what has not changed"
    if plan.run_type == "backfill":
        return "a backfill builds each of its days"
    if plan.activate != "if_newest":
        return f"the run was asked to build (activate: {plan.activate})"
    if live is None:
        return "nothing is live"
    if plan.version <= live.version:
        return f"{live.version}, which is live, is not older"
    if live.inputs is None:
        return f"what entered {live.version}, which is live, is not known"
    if changed := _changed(live.inputs, inputs):
        return f"new since {live.version}, which is live: {', '.join(changed)}"
    # Refused, rejected or rolled back: whoever was told of it is told again.
    if again := [version for version, entered in live.since.items() if entered == inputs]:
        return f"{max(again)} was built from the same since {live.version}, and is not live"
    return None


def _changed(before: Inputs, now: Inputs) -> list[str]:
    names = dict.fromkeys([*now, *before])
    return [name for name in names if before.get(name) != now.get(name)]
