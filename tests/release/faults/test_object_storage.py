"""Object storage refuses, drops, truncates, garbles or is slow, in every step that uses it.

Refusals are 403 where it does not matter which, since boto3 asks again after a 500, for seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from pipelines.release.restore import reconcile
from pipelines.release.retention import retain
from tests.http_proxy import HttpProxy
from tests.release.faults.conftest import World
from tests.release.faults.outcomes import Outcomes, noted
from tests.release.faults.steps import RETENTION, UNIT, run_in
from tests.release.versions import RUNNER
from tests.services import S3Server

pytestmark = pytest.mark.timeout(1200)

_SLOW_SECONDS = 1.5
_RELEASE = ("build", "stage", "activate")


class Fault(NamedTuple):
    """One fault of what matches `path`; it lasts until the step has failed."""

    step: str
    name: str
    act: Callable[[HttpProxy], None]


def _refuse(method: str, path: str, *, status: int = 403, after: int = 0) -> Callable[..., None]:
    """Refuse such requests, but for the first `after` of them."""

    def act(proxy: HttpProxy) -> None:
        if after:
            proxy.delay(method, path, 0.0, times=after)
        proxy.fail(method, path, status, times=None)

    return act


def _drop(method: str, path: str) -> Callable[..., None]:
    return lambda proxy: proxy.drop(method, path, times=None)


def _cut(path: str) -> Callable[..., None]:
    return lambda proxy: proxy.cut("GET", path, after=40, times=None)


def _garble(path: str) -> Callable[..., None]:
    return lambda proxy: proxy.garble("GET", path, times=None)


_FAULTS = [
    Fault("build", "refuses golden.json", _refuse("PUT", "golden.json")),
    Fault("build", "refuses a file of the model", _refuse("PUT", "saved_model.pb")),
    Fault("build", "refuses a table's part", _refuse("PUT", "part-00000")),
    Fault("build", "refuses the manifest", _refuse("PUT", "manifest.json")),
    Fault("build", "answers 500 to the manifest", _refuse("PUT", "manifest.json", status=500)),
    Fault("build", "drops the upload of a table's part", _drop("PUT", "part-00000")),
    Fault("stage", "refuses the manifest", _refuse("GET", "manifest.json")),
    Fault("stage", "truncates the manifest", _cut("manifest.json")),
    Fault("stage", "garbles the manifest", _garble("manifest.json")),
    Fault("stage", "truncates a table's part", _cut("part-00000")),
    Fault("stage", "garbles a table's part", _garble("part-00000")),
    Fault("stage", "truncates a file of the model", _cut("saved_model.pb")),
    Fault("stage", "garbles a file of the model", _garble("saved_model.pb")),
    Fault("activate", "truncates golden.json", _cut("golden.json")),
    Fault("activate", "garbles golden.json", _garble("golden.json")),
    Fault("activate", "refuses to read the desired state", _refuse("GET", "active.json")),
    Fault("activate", "truncates the desired state", _cut("active.json")),
    Fault("activate", "garbles the desired state", _garble("active.json")),
    Fault("activate", "refuses the desired state before the move", _refuse("PUT", "active.json")),
    Fault("activate", "refuses golden.json after the move", _refuse("GET", "golden.json", after=1)),
    Fault("activate", "refuses the history after the move", _refuse("PUT", "history/")),
    Fault("activate", "refuses the desired state after the move",
          _refuse("PUT", "active.json", after=1)),
    Fault("rollback", "does not answer", _drop("GET", "")),
    Fault("rollback", "garbles golden.json", _garble("golden.json")),
    Fault("rollback", "refuses the desired state before the move", _refuse("PUT", "active.json")),
    Fault("rollback", "refuses the history after the move", _refuse("PUT", "history/")),
    Fault("retention", "refuses to keep a manifest", _refuse("PUT", "retired/")),
    Fault("retention", "refuses to delete a manifest", _refuse("DELETE", "manifest.json")),
    Fault("retention", "refuses to delete a file", _refuse("DELETE", "saved_model.pb")),
]  # fmt: skip


def test_object_storage_fails(make_world: Callable[..., World], s3_server: S3Server) -> None:
    with HttpProxy(s3_server.endpoint_url) as proxy:
        outcomes = Outcomes(make_world(s3_endpoint_url=proxy.url))
        for fault in _FAULTS:
            with noted(f"{fault.step}: {fault.name}"):
                _bring_about(fault, outcomes, proxy)
        with noted("it is slow"):
            _slow(outcomes, proxy)
    outcomes.check("Object storage fails")


def _bring_about(fault: Fault, outcomes: Outcomes, proxy: HttpProxy) -> None:
    world = outcomes.world
    is_release = fault.step in _RELEASE
    former = world.begin(upto=fault.step if is_release else None)
    attempted = world.call("build").version
    fault.act(proxy)
    try:
        error = outcomes.fail(fault.step)
    finally:
        proxy.clear()
    live = outcomes.live(former, attempted)
    if is_release:
        world.finish(*_RELEASE[_RELEASE.index(fault.step) :])
        rerun = "the new is live, and whole"
    else:
        run_in(world.context, world.call(fault.step))
        rerun = _AFTERWARDS[fault.step](outcomes, former, attempted)
        live = {"the old": "the version before", "the new": "the version that was live"}[live]
    outcomes.add(fault.step, fault.name, error, live, rerun)


def _rolled_back(outcomes: Outcomes, former: int, attempted: int) -> str:
    reconcile(outcomes.world.context, UNIT, RUNNER)
    assert outcomes.live(former, attempted) == "the old"
    outcomes.world.check_settled()
    return "the version before is live, and whole"


def _retained(outcomes: Outcomes, former: int, attempted: int) -> str:
    context = outcomes.world.context
    assert outcomes.live(former, attempted) == "the new"
    assert retain(context, UNIT, RETENTION, dry_run=True).is_empty
    outcomes.world.check_settled()
    return "what was live is live, and nothing is left to remove"


_AFTERWARDS = {"rollback": _rolled_back, "retention": _retained}


def _slow(outcomes: Outcomes, proxy: HttpProxy) -> None:
    world = outcomes.world
    world.begin(upto="build")
    # Longer than the leases of these tests last: they are renewed meanwhile.
    proxy.delay("GET", "golden.json", _SLOW_SECONDS, times=None)
    proxy.delay("GET", "part-00000", _SLOW_SECONDS, times=None)
    proxy.delay("PUT", "active.json", _SLOW_SECONDS, times=None)
    try:
        for step in _RELEASE:
            run_in(world.context, world.call(step))
    finally:
        proxy.clear()
    world.check_whole(world.call("build").version)
    world.check_settled()
    outcomes.add("all three", "answers slowly", "nothing", "the new", "not needed")
