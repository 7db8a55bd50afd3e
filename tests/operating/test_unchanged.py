"""A run that has nothing new: by the form, with the data of what is live."""

from __future__ import annotations

import pytest

from tests.installation import RUN_SECONDS, Installation
from tests.operating.operated import DAG, live_version, versions

pytestmark = pytest.mark.timeout(3 * RUN_SECONDS)


@pytest.mark.usefixtures("approved")
def test_a_run_with_nothing_new_leaves_what_is_live(ferry: Installation) -> None:
    live = live_version(ferry)
    shown = ferry.ferry("release", "show", "recs", str(live))
    days = shown["data"]["inputs"]["training_days"]
    conf = {
        "run_date": shown["run_date"],
        "training_days": None if days == "None" else int(days),
        "approval": True,
    }
    with ferry.airflow() as dags:
        run = dags.run(DAG, conf)
        version = dags.version(DAG, run.run_id)
        summary = dags.api.returned(DAG, run.run_id, "finish")
    assert run.state == "success", run
    assert {name for name, state in run.tasks.items() if state == "success"} == {
        "plan",
        "ingest",
        "report",
        "finish",
    }
    assert set(run.tasks.values()) == {"success", "skipped"}
    reason = f"nothing new since {live}, which stays live: recs is not trained again"
    for task in ("ingest", "features", "recs.activate"):
        assert reason in run.logs[task], task
    (unit,) = summary["units"]
    assert (unit["outcome"], unit["version"]) == ("unchanged", live)
    assert live_version(ferry) == live
    assert version not in {line["version"] for line in versions(ferry)}
