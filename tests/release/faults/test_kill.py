"""SIGKILL before and after every side effect of every step, with readers at work meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from pipelines.release.restore import reconcile
from pipelines.release.rollback import roll_back
from tests.release.faults.conftest import Reader, World
from tests.release.faults.steps import UNIT, run_in
from tests.release.faults.table import check_section
from tests.release.faults.tripwire import Trip, When
from tests.release.versions import RUNNER, live_version

pytestmark = pytest.mark.timeout(1800)

_HEAD = ("#", "side effect", "killed before it: live", "killed after it: live")


def kill_everywhere(
    world: World,
    step: str,
    prepare: Callable[[], tuple[int, int | None]],
    rerun: Callable[[], None],
    title: str,
) -> None:
    """Kill `step` at each of its side effects and see what is live, and that a rerun completes.

    `prepare` makes the step possible and returns the versions that are live before and after it,
    None for nothing.
    """
    _, after = prepare()
    code, effects, error = world.run(step)
    assert (code, error) == (0, None)
    assert effects, f"{step} has no side effects"
    rerun()
    outcomes: list[dict[When, str]] = []
    with Reader(world.context.settings, may_be_offline=after is None):
        for number, label in enumerate(effects):
            outcome: dict[When, str] = {}
            for when in ("before", "after"):
                old, new = prepare()
                code, seen, _ = world.run(step, Trip(number, when))
                assert code == -signal.SIGKILL, f"{step} was not killed {when} {label}: {seen}"
                assert seen[number] == label, "the step does not do the same every time"
                live = world.check_whole(old, new)
                outcome[when] = _named(live, old, new)
                rerun()
                world.let_leases_run_out()
            outcomes.append(outcome)
    rows = [
        (str(number), label, outcome["before"], outcome["after"])
        for number, (label, outcome) in enumerate(zip(effects, outcomes, strict=True), start=1)
    ]
    check_section(title, _HEAD, rows)


def _named(live: int | None, old: int, new: int | None) -> str:
    if live is None:
        return "nothing"
    if old == new:
        return "the same"
    return "the old" if live == old else "the new"


@pytest.mark.parametrize("step", ["build", "stage", "activate"])
def test_a_release_is_killed(world: World, step: str) -> None:
    def prepare() -> tuple[int, int]:
        return world.begin(upto=step), world.call(step).version

    def rerun() -> None:
        world.finish("build", "stage", "activate")

    kill_everywhere(world, step, prepare, rerun, f"SIGKILL in {step}")


def test_a_reservation_is_killed(world: World) -> None:
    def prepare() -> tuple[int, int]:
        live = world.begin(upto="build")
        return live, live

    def rerun() -> None:
        world.finish("reserve", "build", "stage", "activate")

    kill_everywhere(world, "reserve", prepare, rerun, "SIGKILL in the reservation of a version")


def test_a_rollback_is_killed(world: World) -> None:
    def prepare() -> tuple[int, int]:
        old = world.begin()
        return live(world), old

    def rerun() -> None:
        run_in(world.context, world.call("rollback"))
        reconcile(world.context, UNIT, RUNNER)
        assert live(world) < world.call("rollback").version
        world.check_settled()

    kill_everywhere(world, "rollback", prepare, rerun, "SIGKILL in a rollback")


def test_a_retirement_is_killed(world: World) -> None:
    def prepare() -> tuple[int, None]:
        return live(world), None

    def rerun() -> None:
        run_in(world.context, world.call("retire"))
        reconcile(world.context, UNIT, RUNNER)
        assert live_version(world.context, UNIT) is None
        assert reconcile(world.context, UNIT, RUNNER) == []
        roll_back(world.context, UNIT, None, "for the next time", RUNNER)
        world.check_settled()

    kill_everywhere(world, "retire", prepare, rerun, "SIGKILL in a retirement")


def live(world: World) -> int:
    version = live_version(world.context, UNIT)
    assert version is not None
    return version


def test_a_retention_is_killed(world: World) -> None:
    for _ in range(3):
        world.begin()
    # From now on each new version makes exactly one old one go.
    run_in(world.context, world.call("retention"))

    def prepare() -> tuple[int, int]:
        world.begin()
        return live(world), live(world)

    def rerun() -> None:
        run_in(world.context, world.call("retention"))
        world.check_settled()

    kill_everywhere(world, "retention", prepare, rerun, "SIGKILL in retention")
