"""The DAGs beside the daily one: roll back, retain, check online, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from pipelines.errors import ServiceError
from tests.installation import RUN_SECONDS, Installation
from tests.operating.operated import Approved, Webhook, live_version

pytestmark = pytest.mark.timeout(3 * RUN_SECONDS)


def test_a_rollback_by_its_form(ferry: Installation, earlier: int) -> None:
    def form(version: int | None, reason: str) -> dict[str, Any]:
        return {"unit": "recs", "version": version, "reason": reason}

    live = live_version(ferry)
    with ferry.airflow() as dags:
        back = dags.run("rollback", form(earlier, "wrong prices"))
        assert back.state == "success", back
        (status,) = ferry.ferry("status")
        assert (status["live"]["version"], status["why"]) == (earlier, "wrong prices")
        assert back.run_id in status["who"]
        assert status["problems"] == []
        assert ferry.ferry("recommend", "10")["version"] == earlier
        # It was never live before, and nothing older was.
        none = dags.run("rollback", form(None, "also wrong"))
        assert none.state == "failed"
        assert f"recs {earlier} has no predecessor" in none.logs["roll_back"]
        forward = dags.run("rollback", form(live, "they were right"))
        assert forward.state == "success", forward
    assert live_version(ferry) == live


@pytest.mark.parametrize(
    "bad",
    [{"unit": "rec"}, {"reason": "x"}, {"reason": "    "}, {"reason": ""}, {"version": "latest"}],
)
def test_a_bad_rollback_is_refused(
    ferry: Installation, approved: Approved, bad: dict[str, Any]
) -> None:
    form = {"unit": "recs", "version": approved.version, "reason": "wrong prices", **bad}
    with ferry.airflow() as dags:
        with pytest.raises(ServiceError, match=r"dagRuns: 4\d\d .*" + next(iter(bad))):
            dags.trigger("rollback", form)
        assert dags.api.unfinished_runs("rollback") == []


@pytest.mark.usefixtures("approved")
def test_a_dry_run_of_retention_removes_nothing(ferry: Installation) -> None:
    before = ferry.ferry("release", "list", "recs")
    live = live_version(ferry)
    with ferry.airflow() as dags:
        run = dags.run("retention", {"dry_run": True})
        assert run.state == "success", run
        planned = dags.api.returned("retention", run.run_id, "retain_recs")
    assert (planned["unit"], planned["live"]) == ("recs", live)
    assert live in planned["kept"]
    assert planned["object_storage"] == []
    assert ferry.ferry("release", "list", "recs") == before


@pytest.mark.usefixtures("approved")
def test_an_emptied_redis_is_repaired_by_the_online_check(
    ferry: Installation, webhook: Webhook
) -> None:
    before = ferry.ferry("recommend", "10")
    url = next(
        line.split("=", 1)[1].strip("'")
        for line in (Path(ferry.environment["FERRY_HOME"]) / "env").read_text().splitlines()
        if line.startswith("FERRY_REDIS_URL=")
    )
    with redis.Redis.from_url(url) as client:
        client.flushall()
    assert ferry.run("pipelines.cli", "recommend", "10").returncode == 1
    with ferry.airflow() as dags:
        run = dags.run("online_check", {})
        assert run.state == "success", run
        (checked,) = dags.api.returned("online_check", run.run_id, "check")
    assert checked["repaired"]
    assert checked["checks"]
    assert ferry.ferry("recommend", "10") == before
    webhook.wait_for("repaired online", "staged again")


@pytest.mark.usefixtures("approved")
def test_a_restore_by_its_form(ferry: Installation) -> None:
    with ferry.airflow() as dags:
        run = dags.run("restore", {"unit": "recs"})
        assert run.state == "success", run
        done = dags.api.returned("restore", run.run_id, "restore_online")
    assert any("agree" in line for line in done["recs"])
