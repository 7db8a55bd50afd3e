"""Readers at full speed, in processes of their own, while versions go live and are rolled back."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pipelines.patience import patient
from pipelines.release.activate import activate
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.rollback import roll_back
from tests.release.reader_process import Readings, read_until
from tests.release.versions import RUNNER, build, live_version, release, stage

_SECONDS = 30.0
_READERS = 3


@contextmanager
def readers(context: ReleaseContext, unit: str) -> Iterator[list[Readings]]:
    """Let processes read while the block runs; afterwards the list holds what each one saw."""
    processes = multiprocessing.get_context("spawn")
    stop = processes.Event()
    environment = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    found: list[Readings] = []
    started: list[tuple[multiprocessing.context.SpawnProcess, Connection]] = []
    try:
        for _ in range(_READERS):
            ours, theirs = processes.Pipe()
            process = processes.Process(
                target=read_until, args=(context.settings, environment, unit, stop, theirs)
            )
            process.start()
            started.append((process, ours))
        for _, channel in started:
            assert channel.poll(patient(_SECONDS)), "a reader did not start"
            channel.recv()
        yield found
    finally:
        stop.set()
        for process, channel in started:
            if channel.poll(patient(_SECONDS)):
                found.append(channel.recv())
            process.join(patient(_SECONDS))
            if process.is_alive():
                process.kill()


def switch_and_go_back(context: ReleaseContext, versions: list[Manifest], moves: int) -> None:
    """Move the pointer `moves` times: forward through all versions, then back to the first."""
    unit, done = versions[0].unit, 0
    while done < moves:
        for manifest in versions[1:]:
            # What was rolled back goes live again only on purpose.
            state = context.registry.active(unit)
            if state and manifest.version in state.withdrawn:
                roll_back(context, unit, manifest.version, "forward again", RUNNER)
            else:
                assert activate(context, manifest).outcome == "live"
            done += 1
        for _ in versions[1:]:
            roll_back(context, unit, None, "back", RUNNER)
            done += 1
        assert live_version(context, unit) == versions[0].version


def prepared(
    context: ReleaseContext, folder: Path, unit: str, models: Path, count: int
) -> list[Manifest]:
    """Return versions of which the first is live and all are staged."""
    first = release(context, folder, unit, 1, models)
    later = [build(context, folder, unit, n, models) for n in range(2, count + 1)]
    for manifest in later:
        stage(context, manifest)
    return [first, *later]


def check(found: list[Readings], versions: list[Manifest]) -> None:
    assert len(found) == _READERS, "a reader ended before it was told to"
    assert [problem for readings in found for problem in readings.wrong] == []
    for readings in found:
        assert readings.reads > 1000
        assert readings.versions <= {manifest.version for manifest in versions}
    assert len(set.union(*(readings.versions for readings in found))) > 1


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("unit", "moves"), [("recs", 200), ("embeddings", 100)])
def test_no_reader_sees_an_error_or_another_version_than_the_pointer_named(
    tables_only: ReleaseContext, tmp_path: Path, unit: str, moves: int
) -> None:
    versions = prepared(tables_only, tmp_path, unit, tmp_path, 5)
    with readers(tables_only, unit) as found:
        switch_and_go_back(tables_only, versions, moves)
    check(found, versions)


@pytest.mark.timeout(900)
def test_no_score_is_of_another_version_than_its_features(
    served: ReleaseContext, tmp_path: Path, models: Path
) -> None:
    # Two: what the model servers keep loaded beside a live version is its predecessor.
    versions = prepared(served, tmp_path, "embedding_mlp", models, 2)
    with readers(served, "embedding_mlp") as found:
        switch_and_go_back(served, versions, 60)
    check(found, versions)
