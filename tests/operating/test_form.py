"""Runs by the trigger form: its fields, approval, what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pytest

from pipelines.errors import ServiceError
from tests.installation import RUN_SECONDS, DagRun, Installation
from tests.operating.operated import (
    DAG,
    LAST,
    TODAY,
    TRAINING_DAYS,
    Approved,
    Webhook,
    answer,
    live_version,
)

pytestmark = pytest.mark.timeout(3 * RUN_SECONDS)


def test_a_run_by_the_form_goes_live_once_it_is_approved(
    ferry: Installation, approved: Approved
) -> None:
    assert approved.run.state == "success", approved
    assert set(approved.run.tasks.values()) == {"success"}, approved.run.tasks
    shown = ferry.ferry("release", "show", "recs", str(approved.version))
    assert shown["moves"][0]["version"] == approved.version
    training = shown["data"]["training"]
    assert date.fromisoformat(training["first_day"]) == LAST - timedelta(days=TRAINING_DAYS - 1)


@pytest.mark.usefixtures("approved")
def test_a_run_that_is_late_is_told(ferry: Installation, webhook: Webhook) -> None:
    notice = webhook.wait_for(f"{DAG} is late", "it has not ended within", "/runs/manual__")
    assert "live now: " in notice
    # The secret part of the address comes from the connection.
    assert webhook.paths == {"/hooks/secret-part"}


@dataclass(frozen=True)
class Rejected:
    """A run of a day that has not ended, whose version somebody rejected; what was live before."""

    run: DagRun
    version: int
    live_before: int


@pytest.fixture(scope="module")
def rejected(ferry: Installation, approved: Approved) -> Rejected:
    before = live_version(ferry)
    form = {
        "run_date": TODAY.isoformat(),
        "partial_day": True,
        "training_days": TRAINING_DAYS,
        "approval": True,
    }
    with ferry.airflow() as dags:
        run_id = dags.trigger(DAG, form)
        answer(dags, run_id, "Reject")
        return Rejected(dags.wait(DAG, run_id), dags.version(DAG, run_id), before)


def test_a_version_that_somebody_rejects_does_not_go_live(
    ferry: Installation, rejected: Rejected, webhook: Webhook
) -> None:
    run = rejected.run
    assert run.state == "success", run
    assert run.tasks["recs.activate"] == "skipped"
    reason = f"version {rejected.version} was rejected by admin"
    assert reason in run.logs["recs.activate"]
    assert live_version(ferry) == rejected.live_before
    notice = webhook.wait_for(f"{DAG}: not live", f"recs: {reason}")
    assert f"live now: recs {rejected.live_before}" in notice


def test_a_day_that_has_not_ended_is_built_if_somebody_asks_for_the_part_of_it(
    ferry: Installation, rejected: Rejected
) -> None:
    shown = ferry.ferry("release", "show", "recs", str(rejected.version))
    assert shown["data"]["training"]["last_day"] == TODAY.isoformat()


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"units": ["rec"]}, "units"),
        ({"units": []}, "units"),
        ({"run_date": "tomorrow"}, "run_date"),
        ({"training_days": 0}, "training_days"),
        ({"note": "x" * 501}, "note"),
        ({"activate": "yes"}, "activate"),
        ({"approval": "maybe"}, "approval"),
        ({"partial_day": "half"}, "partial_day"),
    ],
)
def test_the_form_refuses(ferry: Installation, bad: dict[str, Any], named: str) -> None:
    with ferry.airflow() as dags:
        with pytest.raises(ServiceError, match=rf"dagRuns: 4\d\d .*{named}"):
            dags.trigger(DAG, bad)
        assert dags.api.unfinished_runs(DAG) == []


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"run_date": f"{TODAY + timedelta(days=2)}", "partial_day": True}, "is in the future: it"),
        (
            {"run_date": f"{TODAY}"},
            f"run_date {TODAY} has not ended: it is complete at "
            f"{TODAY + timedelta(days=1)} 00:00 UTC. The last complete day is {LAST}",
        ),
        ({"run_date": "1980-01-01"}, "no accepted event on 1980-01-01"),
    ],
)
def test_a_date_that_cannot_be_built_fails_in_one_line(
    ferry: Installation, conf: dict[str, Any], reason: str, webhook: Webhook
) -> None:
    with ferry.airflow() as dags:
        run = dags.run(DAG, conf)
    assert run.state == "failed"
    (failed,) = [name for name in ("plan", "ingest") if run.tasks[name] == "failed"]
    assert reason in run.logs[failed]
    webhook.wait_for(f"{DAG}: finish failed", run.run_id.split("+")[0].replace(":", "%3A"))
