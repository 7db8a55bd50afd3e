"""Retirement: a unit is taken offline, until a rollback or a newer version makes it live again.

It is a switch to nothing (:mod:`pipelines.release.switch`): the desired state is written first,
then the pointer is emptied, then the move is recorded. A crash before the pointer is empty leaves
the version live, and whoever comes next completes the retirement.
"""

from __future__ import annotations

import logging

from pipelines.errors import ReleaseError
from pipelines.release.context import ReleaseContext
from pipelines.release.desired import DesiredState, Retirement
from pipelines.release.state import desired_state, retirement_behind, standing_state
from pipelines.release.switch import hold, make_switch, next_state, settle

log = logging.getLogger(__name__)


class RetireError(ReleaseError):
    """A retirement that can't be done as asked. Trying again can't help."""

    retryable = False


def retire(context: ReleaseContext, unit: str, reason: str) -> Retirement:
    """Take a unit offline: its pointer names nothing, and readers are told so.

    The version that was live is withdrawn: neither a retry of its run nor a reconciliation makes
    it live again, only a rollback. A newer version goes live as usual. A retirement that was left
    half-way is completed, and counts as this one. Model servers are not asked, and keep the
    version loaded.

    Raises:
        RetireError: no reason is given, or nothing of the unit is live.
        ReleaseError: another process is at the unit.
    """
    if not reason.strip():
        raise RetireError(f"a retirement of {unit} needs a reason: the history keeps it")
    if done := complete_retirement(context, unit):
        return done
    with hold(context, unit) as lease:
        live = standing_state(context, unit)
        if live is None or live.version is None:
            raise RetireError(_nothing_live(context, unit, live))
        lease.require()
        _record_move_before(context, live)
        withdrawn = {**live.withdrawn, live.version: reason}
        wanted = next_state(
            context, unit, None, "retirement", reason, backward=True, withdrawn=withdrawn
        )
        make_switch(context, lease, wanted, None)
    return Retirement(unit=unit, version=live.version, at=wanted.at, who=wanted.who, why=wanted.why)


def complete_retirement(context: ReleaseContext, unit: str) -> Retirement | None:
    """Complete a retirement that was left half-way; returns it, None if there is none."""
    state = desired_state(context, unit)
    if state is None or state.retirement is None or state.state != "switching":
        return None
    if done := settle(context, unit):
        log.info(done)
    return state.retirement


def _record_move_before(context: ReleaseContext, live: DesiredState) -> None:
    """Record the move that made `live` so, if a crash kept it from being: the history is whole."""
    state = desired_state(context, live.unit)
    if state and state.state == "switching" and state.epoch == live.epoch:
        context.registry.commit(state)


def _nothing_live(context: ReleaseContext, unit: str, state: DesiredState | None) -> str:
    retired = retirement_behind(context, state)
    return (
        f"nothing of {unit} is live: it was {retired.text}"
        if retired
        else (f"nothing of {unit} is live: there is nothing to retire")
    )
