"""The steps of a release, each as one call that a process of its own makes."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from pipelines.config import ReleaseConfig, RetentionConfig, Settings
from pipelines.errors import FerryError
from pipelines.online import leases
from pipelines.release.activate import activate
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.restore import restore
from pipelines.release.retention import retain
from pipelines.release.retire import retire
from pipelines.release.rollback import roll_back
from tests.release.faults.tripwire import Trip, Tripwire, install
from tests.release.versions import DAY, RUNNER, build, plan, stage

UNIT = "embedding_mlp"
CONFIG = ReleaseConfig(load_timeout_seconds=8)
RETENTION = RetentionConfig(online=2, stored=3)
#: What a killed process holds is free after this time; thirty seconds would make long tests. One
#: that lives renews three times meanwhile, also where all cores are taken.
_LEASE_SECONDS = 2.0


@dataclass(frozen=True)
class Call:
    """One step for one attempt; plain values, since it travels to another process."""

    step: str
    settings: Settings
    environment: dict[str, str]
    folder: Path
    models: Path
    attempt: int

    @property
    def version(self) -> int:
        """The attempt's version."""
        return plan(UNIT, self.attempt).version


def run_in(context: ReleaseContext, call: Call) -> None:
    """Make the step, as its task does; again, it completes what is not complete.

    It owns its leases as the run of its attempt, whosever the context is.
    """
    context = replace(context, owner=plan(UNIT, call.attempt).run_id)
    registry, step = context.registry, call.step
    if step == "reserve":
        run_id = f"run {call.attempt}"
        first = registry.reserve_version(context.online.leases, DAY, run_id)
        assert registry.reserve_version(context.online.leases, DAY, run_id) == first
    elif step == "build":
        if not registry.manifest(UNIT, call.version):
            folder = Path(tempfile.mkdtemp(prefix="build-", dir=call.folder))
            build(context, folder, UNIT, call.attempt, call.models)
    elif step == "stage":
        stage(context, registry.sealed(UNIT, call.version))
    elif step == "activate":
        assert activate(context, registry.sealed(UNIT, call.version)).outcome == "live"
    elif step == "rollback":
        pointer = context.online.pointers.get(UNIT)
        if pointer and pointer.version == call.version:
            roll_back(context, UNIT, None, "a test", RUNNER)
    elif step == "retire":
        if context.online.pointers.get(UNIT):
            retire(context, UNIT, "a test")
    elif step == "restore":
        restore(context, UNIT, RUNNER)
    elif step == "retention":
        retain(context, UNIT, RETENTION, dry_run=False)
    else:
        raise ValueError(step)


def main(call: Call, log: Path, trip: Trip | None, channel: Connection | None) -> None:
    """Be the process that makes the step; what failed is left beside `log`."""
    os.environ.update(call.environment)
    leases.LEASE_SECONDS = _LEASE_SECONDS
    install(Tripwire(log, trip, channel))
    try:
        with release_context(call.settings, CONFIG, "") as context:
            run_in(context, call)
    except FerryError as error:
        log.with_suffix(".error").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise SystemExit(3) from error
