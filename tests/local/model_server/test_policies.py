"""Which versions to serve, and in which order to move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.model_server.policy import Action, Snapshot, State, Verb, next_action
from local.model_server.sources import (
    AllVersions,
    LatestVersions,
    SpecificVersions,
    VersionPolicy,
    choose_versions,
    parse_version,
)

DISK = ["1", "2", "10", "10.tmp", "notes", "0003", "-4", "9223372036854775808"]
SPECIFIC = SpecificVersions(frozenset({2, 99}))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (LatestVersions(), {10: "10"}),
        (LatestVersions(2), {10: "10", 3: "0003"}),
        (LatestVersions(99), {-4: "-4", 1: "1", 2: "2", 3: "0003", 10: "10"}),
        (AllVersions(), {-4: "-4", 1: "1", 2: "2", 3: "0003", 10: "10"}),
        (SPECIFIC, {2: "2"}),
        (SpecificVersions(frozenset({5})), {}),
    ],
)
def test_policies(policy: VersionPolicy, expected: dict[int, str]) -> None:
    assert choose_versions(DISK, policy) == expected


def test_two_names_of_one_version() -> None:
    assert choose_versions(["1", "01", "001"], AllVersions()) == {1: "1"}


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 5))
def test_any_int64_is_a_version(version: int, zeros: int) -> None:
    sign, digits = ("-", str(version)[1:]) if version < 0 else ("", str(version))
    assert parse_version(f"{sign}{'0' * zeros}{digits}") == version


@given(st.text().filter(lambda text: not text.lstrip("-").isdecimal()))
def test_nothing_else_is(name: str) -> None:
    assert parse_version(name) is None
    assert parse_version(f"1{name}") is None or name == ""


S, L, A, U, E = State.START, State.LOADING, State.AVAILABLE, State.UNLOADING, State.END


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([], None),
        ([(1, True, S)], Action(Verb.LOAD, 1)),
        ([(1, True, S), (2, True, S)], Action(Verb.LOAD, 2)),
        ([(1, True, L)], None),
        ([(1, True, A)], None),
        # the old version stays while the new one is on its way, and when it fails
        ([(1, False, A), (2, True, S)], Action(Verb.LOAD, 2)),
        ([(1, False, A), (2, True, L)], None),
        ([(1, False, A), (2, True, E)], None),
        ([(1, False, A), (2, True, A)], Action(Verb.UNLOAD, 1)),
        ([(1, False, A), (2, False, A), (3, True, A)], Action(Verb.UNLOAD, 1)),
        ([(1, False, U), (2, True, A)], None),
        # room is made before a further version is loaded
        ([(1, False, A), (2, True, A), (3, True, S)], Action(Verb.UNLOAD, 1)),
        # nothing aspired: everything goes
        ([(1, False, A)], Action(Verb.UNLOAD, 1)),
        ([(1, False, L)], None),
        ([(1, False, E)], None),
    ],
)
def test_next_action(versions: list[tuple[int, bool, State]], expected: Action | None) -> None:
    assert next_action(Snapshot(*item) for item in versions) == expected
