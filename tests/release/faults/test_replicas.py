"""One of two replicas hangs, is gone, or answers wrongly; or none of them can load the model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from local import health
from local.home import HOST
from pipelines.config import Replica, Settings
from pipelines.errors import FerryError
from pipelines.online.ranking_inputs import serving_inputs
from pipelines.online.tf_serving import ModelServer as Client
from pipelines.patience import patient
from pipelines.release.activate import activate
from pipelines.release.context import release_context
from pipelines.release.restore import reconcile
from pipelines.release.rollback import roll_back
from pipelines.release.serving_config import (
    configured_labels,
    configured_versions,
    read_config,
    with_model,
)
from pipelines.release.stage_model import bring_model, load_model
from pipelines.run import parse_version
from tests.release.faults.conftest import World
from tests.release.faults.outcomes import Outcomes, noted
from tests.release.faults.steps import CONFIG, UNIT
from tests.release.faults.tripwire import Trip
from tests.release.versions import RUNNER, build, raw_row, stage, weight
from tests.services import ModelServer

pytestmark = pytest.mark.timeout(1200)

_RELEASE = ("build", "stage", "activate")
_RELOAD = "model server 2: reload"
#: What the program itself takes on a busy machine, beside the deadlines that it waits for.
_SLACK_SECONDS = 8.0
_QUICK_SECONDS = 5.0
#: What took longer may have begun in a crowd that has gone since.
_CROWDED = 5


def _hang(server: ModelServer) -> None:
    os.kill(server.process.pid, signal.SIGSTOP)


def _put_right(server: ModelServer) -> None:
    """Let a server that hangs go on, and start one that is gone."""
    if server.process.poll() is None:
        os.kill(server.process.pid, signal.SIGCONT)
    else:
        server.start()


class Fault(NamedTuple):
    """What happens to the second replica: before `step`, or when it is stopped at `at`."""

    step: str
    name: str
    act: Callable[[ModelServer], None]
    #: The deadlines that the step may have to wait for, added up.
    seconds: float
    at: str | None = None


# Loading has 8 seconds in these tests, an answer 10, and what is there already 5: labels, and a
# former configuration that is put back.
_FAULTS = [
    Fault("stage", "hangs", _hang, 8 + 5 + 5),
    Fault("stage", "is gone", ModelServer.kill, 0),
    Fault("activate", "hangs", _hang, 10),
    Fault("activate", "is gone", ModelServer.kill, 0),
    Fault("activate", "hangs while the labels move", _hang, 5 + 5 + 5, _RELOAD),
    Fault("activate", "is gone while the labels move", ModelServer.kill, 0, _RELOAD),
]


def test_a_replica_fails(
    make_world: Callable[..., World], model_server: ModelServer, second_replica: ModelServer
) -> None:
    outcomes = Outcomes(make_world())
    for fault in _FAULTS:
        with noted(f"{fault.step}: {fault.name}"):
            _bring_about(fault, outcomes, model_server, second_replica)
    for name, act, seconds in (("hangs", _hang, 5.0 + 10.0), ("is gone", ModelServer.kill, 0.0)):
        with noted(f"rollback: {name}"):
            _roll_back(outcomes, second_replica, name, act, seconds)
    with noted("the model's file is damaged"):
        _damaged_on_disk(outcomes, model_server)
    with noted("it answers wrongly"):
        _answers_wrongly(outcomes, model_server, second_replica)
    outcomes.check("A replica fails")


def _bring_about(fault: Fault, outcomes: Outcomes, first: ModelServer, second: ModelServer) -> None:
    world = outcomes.world
    old = world.begin(upto=fault.step)
    new = world.call("build").version
    started = time.monotonic()
    try:
        if fault.at:
            trip = Trip(fault.at, "before", "pause")
            error = outcomes.fail(fault.step, trip, lambda: fault.act(second))
        else:
            fault.act(second)
            error = outcomes.fail(fault.step)
        took = time.monotonic() - started
        assert took < _CROWDED * patient(fault.seconds + _SLACK_SECONDS), f"it took {took:.1f} s"
        assert _names(error, second), error
        assert outcomes.live(old, new) == "the old"
        _check_former(outcomes, first, loaded=fault.step == "activate")
    finally:
        _put_right(second)
    world.finish(*_RELEASE)
    _check_labels(outcomes, new, first, second)
    name = f"the second replica {fault.name}"
    outcomes.add(fault.step, name, error, "the old", "the new is live, and whole")


def _names(error: str, server: ModelServer) -> bool:
    """Tell whether an error says which replica failed."""
    return f"{HOST}:{server.grpc_port}" in error or f"{HOST}:{server.rest_port}" in error


def _check_former(outcomes: Outcomes, first: ModelServer, *, loaded: bool) -> None:
    """Assert that the healthy replica, and the configuration, have what they had before.

    The version that failed stays `loaded` where it was so before the step.
    """
    world = outcomes.world
    pointer = world.context.online.pointers.get(UNIT)
    assert pointer is not None
    new = world.call("build").version
    config = read_config(first.model_dir)
    wanted = configured_versions(config, UNIT)
    assert pointer.needed <= wanted
    assert (new in wanted) == loaded
    assert configured_labels(config, UNIT)["stable"] == pointer.version
    assert health.wait_until(lambda: _available(first) == wanted, _QUICK_SECONDS), _available(first)
    _check_labels(outcomes, pointer.version, first)


def _available(server: ModelServer) -> frozenset[int]:
    with client_of(server) as client:
        states = client.versions(UNIT)
    return frozenset(version for version, (state, _) in states.items() if state == "AVAILABLE")


def client_of(server: ModelServer) -> Client:
    """Return Ferry's client of one server."""
    return Client(Replica(HOST, server.grpc_port, server.rest_port))


def _check_labels(outcomes: Outcomes, version: int, *servers: ModelServer) -> None:
    """Assert that clients who use the label `stable` get this version's answers."""
    inputs = serving_inputs([raw_row(user_id="1", item_id="2", user_rating_mean=3.5)])
    body = {"inputs": {name: list(column) for name, column in inputs.items()}}
    expected = 3.5 * weight(parse_version(version)[1])
    for server in servers:
        url = f"http://{HOST}:{server.rest_port}/v1/models/{UNIT}/labels/stable:predict"
        answer = httpx.post(url, content=json.dumps(body), trust_env=False)
        assert answer.json()["outputs"][0] == pytest.approx(expected), answer.text


def _roll_back(
    outcomes: Outcomes,
    second: ModelServer,
    name: str,
    act: Callable[[ModelServer], None],
    seconds: float,
) -> None:
    """Roll back while the second replica fails: the version before is live all the same."""
    world = outcomes.world
    old = world.begin()
    started, begun = time.monotonic(), datetime.now(UTC)
    try:
        act(second)
        done = roll_back(world.context, UNIT, None, "a test", RUNNER)
        took = time.monotonic() - started
        assert took < _CROWDED * patient(seconds + _SLACK_SECONDS), f"it took {took:.1f} s"
        assert done.version == old
        pointer = world.context.online.pointers.get(UNIT)
        assert pointer is not None
        # The switch waits for nobody; what takes longer is to tell the replica that fails.
        assert (pointer.since - begun).total_seconds() < patient(_QUICK_SECONDS)
        assert world.check_whole(old) == old
        assert len(done.problems) == 1
        assert _names(done.problems[0], second)
    finally:
        _put_right(second)
    reconcile(world.context, UNIT, RUNNER)
    assert world.check_whole(old) == old
    world.check_settled()
    _check_labels(outcomes, old, second)
    said = f"nothing; what does not follow yet: {done.problems[0]}"
    rerun = "the replica follows"
    outcomes.add(
        "rollback", f"the second replica {name}", said, "the version before, at once", rerun
    )


def _damaged_on_disk(outcomes: Outcomes, first: ModelServer) -> None:
    """Damage the model on the servers' disk after it was verified and before it is loaded."""
    world = outcomes.world
    old = world.begin(upto="stage")
    new = world.call("build").version
    trip = Trip("disk: rename to <version>", "after", "pause")
    error = outcomes.fail("stage", trip, lambda: _damage(first.model_dir / UNIT / str(new)))
    assert _names(error, first), error
    assert outcomes.live(old, new) == "the old"
    _check_former(outcomes, first, loaded=False)
    world.finish(*_RELEASE)
    fault = "the model's file is damaged on the servers' disk"
    outcomes.add("stage", fault, error, "the old", "the new is live, and whole")


def _damage(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"no model")


def _answers_wrongly(outcomes: Outcomes, first: ModelServer, second: ModelServer) -> None:
    """Let the second replica have another model under the version's number before Ferry loads it.

    A server keeps what it has loaded under a number. The file that the servers poll is away for so
    long, or they would be what it says.
    """
    world = outcomes.world
    old = world.begin(upto="stage")
    new = world.call("build").version
    elsewhere = world.folder / "elsewhere"
    shutil.copytree(first.model_dir / UNIT / str(old), elsewhere / str(old))
    shutil.copytree(world.models / str(weight(world.attempt + 1)), elsewhere / str(new))

    def load_another() -> None:
        config = read_config(first.model_dir)
        first.config_file.unlink()
        labels = configured_labels(config, UNIT)
        another = with_model(config, UNIT, elsewhere, [old, new], labels)
        with client_of(second) as client:
            client.reload(another, _QUICK_SECONDS)
        assert health.wait_until(lambda: new in _available(second), _QUICK_SECONDS)

    trip = Trip("disk: rename to models.config", "before", "pause")
    code, _, message = world.run("stage", trip, load_another)
    assert (code, message) == (0, None)
    error = outcomes.fail("activate")
    assert error.startswith("VerificationError")
    assert _names(error, second), error
    assert not _names(error, first)
    assert outcomes.live(old, new) == "the old"
    _check_former(outcomes, first, loaded=True)
    second.stop()
    second.start()
    world.finish("activate")
    fault = "the second replica answers wrongly"
    outcomes.add("activate", fault, error, "the old", "(the replica started again) the new is live")


def test_the_first_model_fails_to_load(
    settings_for: Callable[..., Settings], models: Path, tmp_path: Path
) -> None:
    """Nothing was live before, no other model is served, and yet the same version can be loaded."""
    with release_context(settings_for(), CONFIG, "a test") as context:
        manifest = build(context, tmp_path, UNIT, 1, models)
        _damage(bring_model(context, manifest))
        with pytest.raises(FerryError, match="model server at"):
            load_model(context, manifest)
        stage(context, manifest)
        assert activate(context, manifest).outcome == "live"
