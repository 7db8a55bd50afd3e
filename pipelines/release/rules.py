"""The rules of a release, as pure functions: what may go live, what a rollback goes to, what stays.

Versions are numbers that grow with the run date first and the attempt second
(:mod:`pipelines.run`); sealed means that the version has a manifest.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipelines.errors import ConfigError
from pipelines.models_config import UNITS, Unit
from pipelines.run import ActivateMode


def known_unit(name: str) -> Unit:
    """Return `name` as a unit.

    Raises:
        ConfigError: there is no such unit; the message suggests the nearest.
    """
    for unit in UNITS:
        if unit == name:
            return unit
    near = difflib.get_close_matches(name, UNITS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"no unit {name!r}: {hint}units are {', '.join(UNITS)}")


def activation_refusal(
    version: int,
    live: int | None,
    *,
    mode: ActivateMode = "if_newest",
    withdrawn: Mapping[int, str] | None = None,
    gates: str | None = None,
    rejected: str | None = None,
    retired: int | None = None,
) -> str | None:
    """Return why `version` may not go live, or None if it may.

    Args:
        version: the candidate.
        live: what is live, or ought to be.
        mode: ``if_newest`` lets only a version that is not older than `live` go live; ``always``
            any; ``never`` none.
        withdrawn: versions that a rollback or a retirement took back, with its reason. Only a
            rollback makes one live again.
        gates: why the gates refused the candidate, if they did.
        rejected: how a person rejected it, if one did.
        retired: where nothing is live because the unit was retired, what was live until then; like
            `live`, it bars what is older.
    """
    if gates:
        return f"version {version} was refused by its gates: {gates}"
    if rejected:
        return (
            f"version {version} was {rejected}; only 'ferry rollback --to {version}' makes it live"
        )
    if withdrawn and version in withdrawn:
        return (
            f"version {version} was withdrawn: {withdrawn[version]}; only "
            f"'ferry rollback --to {version}' makes it live again"
        )
    if mode == "never":
        return "the run was asked to leave alone what is live (activate: never)"
    if mode == "if_newest" and live is not None and version < live:
        return f"version {version} is older than {live}, which is live"
    if mode == "if_newest" and retired is not None and version < retired:
        return f"version {version} is older than {retired}, which was live until it was retired"
    return None


def previous_of(version: int, was_live: Sequence[int], *, is_rollback: bool) -> int | None:
    """Return what a rollback from `version` goes to, of what `was_live` (the latest last).

    After a release it is what was live just before; after a rollback the newest older version, so
    that a second rollback does not go forward again to what the first one left.
    """
    if is_rollback:
        return max((v for v in was_live if v < version), default=None)
    return next((v for v in reversed(was_live) if v != version), None)


@dataclass(frozen=True)
class Kept:
    """What retention leaves: `online` in Redis and on the model servers, `stored` in object
    storage; `online` is part of `stored`.
    """

    online: frozenset[int]
    stored: frozenset[int]


def retained(
    sealed: Sequence[int], needed: Collection[int], live: int | None, *, online: int, stored: int
) -> Kept:
    """Choose the versions of a unit that retention keeps.

    Kept everywhere are `needed` (the live version, its predecessor, what was just replaced), the
    newest `online` or `stored` ones, and whatever is newer than the live version. Of a retired
    unit `live` is what was live until then. Where nothing ever was, everything is kept: there is no
    telling what is old.
    """
    versions = frozenset(sealed)
    if live is None:
        return Kept(versions, versions)
    always = {v for v in versions if v in needed or v >= live}
    newest = sorted(versions, reverse=True)
    kept_online = frozenset(always | set(newest[:online]))
    return Kept(kept_online, kept_online | frozenset(newest[:stored]))
