from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import PROJECT_ROOT, load_pipeline_config
from pipelines.models_config import UNITS

#: Those that are built every day.
ENABLED = load_pipeline_config(PROJECT_ROOT / "pipeline.yaml").models.enabled_units()


def parse(folder: Path, home: Path) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("parse_dags.py")), str(folder)],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "FERRY"))},
            "AIRFLOW_HOME": str(home),
            # Whatever this machine has room for.
            "FERRY_HEAVY_TASKS": "2",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    parsed: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return parsed


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parse(PROJECT_ROOT / "dags", tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="session")
def daily(parsed: dict[str, Any]) -> dict[str, Any]:
    dag: dict[str, Any] = parsed["dags"]["daily_retraining"]
    return dag


def test_no_import_errors(parsed: dict[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert set(parsed["dags"]) == {
        "daily_retraining",
        "online_check",
        "restore",
        "retention",
        "rollback",
    }


def test_parsing_imports_nothing_heavy(parsed: dict[str, Any]) -> None:
    assert parsed["heavy"] == []


def test_parsing_is_quick(parsed: dict[str, Any]) -> None:
    assert max(parsed["seconds"].values()) < 1.0, parsed["seconds"]


def test_every_dag_is_documented_and_bounded(parsed: dict[str, Any]) -> None:
    for dag_id, dag in parsed["dags"].items():
        assert dag["tags"], dag_id
        assert dag["doc"], dag_id
        # What waits for a person has a time of its own instead.
        without = {task for task, seconds in dag["timeouts"].items() if seconds is None}
        assert without == set(dag["response_seconds"]), dag_id


def test_daily_retraining_graph(daily: dict[str, Any]) -> None:
    expected = {
        "plan": sorted(
            [
                "ingest",
                "report",
                "finish",
                "embedding_mlp.build",
                *(f"{u}.activate" for u in ENABLED),
            ]
        ),
        "ingest": ["features"],
        "features": sorted(f"{unit}.build" for unit in ENABLED),
        "report": ["finish"],
        "finish": [],
    }
    for unit in ENABLED:
        expected[f"{unit}.build"] = [f"{unit}.stage"]
        expected[f"{unit}.stage"] = [f"{unit}.approve"]
        expected[f"{unit}.approve"] = [f"{unit}.activate"]
        expected[f"{unit}.activate"] = ["report"]
    assert daily["downstream"] == expected


def test_daily_retraining_policies(daily: dict[str, Any]) -> None:
    assert daily["max_active_runs"] == 1
    assert daily["catchup"] is False
    # A plain cron string would make a timetable whose intervals have no length.
    assert daily["timetable"] == "DataDayTimetable"
    assert set(daily["retries"].values()) == {2}
    # Only the end looks past failures: no unit goes on after its own failed step. What was skipped
    # before it, an activation looks at, to say why itself.
    rules = daily["trigger_rules"]
    assert {rules.pop(task) for task in ("report", "finish")} == {"all_done"}
    assert {rules.pop(f"{unit}.activate") for unit in ENABLED} == {"none_failed"}
    assert set(rules.values()) == {"all_success"}


def test_rollback_asks_for_a_reason_and_knows_the_units(parsed: dict[str, Any]) -> None:
    params = parsed["dags"]["rollback"]["params"]
    assert params["unit"]["enum"] == list(UNITS)
    assert params["reason"]["minLength"] > 0
    assert not re.search(params["reason"]["pattern"], "   ")
    assert re.search(params["reason"]["pattern"], " wrong prices ")
    assert params["version"]["type"] == ["null", "integer"]


def test_a_rollback_does_not_wait_until_it_is_unpaused(parsed: dict[str, Any]) -> None:
    assert parsed["dags"]["rollback"]["paused_at_first"] is False


def test_daily_retraining_leaves_newer_versions_alone_unless_asked(daily: dict[str, Any]) -> None:
    activate = daily["params"]["activate"]
    assert activate["enum"] == ["if_newest", "always", "never"]
    assert daily["defaults"]["activate"] == "if_newest"


def test_the_form_names_units_and_bounds(daily: dict[str, Any]) -> None:
    params, defaults = daily["params"], daily["defaults"]
    assert params["run_date"]["format"] == "date"
    assert defaults["units"] == params["units"]["items"]["enum"] == list(ENABLED)
    # Airflow's form makes a choice of several out of these.
    assert params["units"]["examples"] == list(ENABLED)
    assert params["units"]["minItems"] == 1
    assert params["training_days"]["minimum"] == 1
    assert params["note"]["maxLength"] == 500
    assert defaults["approval"] is False
    assert defaults["partial_day"] is False
    assert params["train_again"]["type"] == "boolean"
    assert defaults["train_again"] is False


def test_an_approval_ends_by_itself(daily: dict[str, Any]) -> None:
    waiting = daily["response_seconds"]
    assert set(waiting) == {f"{unit}.approve" for unit in ENABLED}
    assert {(seconds, *answers) for seconds, answers in waiting.values()} == {(12 * 3600, "Reject")}


def test_trainings_share_the_machine_and_leave_room_for_a_rollback(parsed: dict[str, Any]) -> None:
    slots = parsed["dags"]["daily_retraining"]["pool_slots"]
    heavy = {task for task, taken in slots.items() if taken > 1}
    assert heavy == {"features", *(f"{unit}.build" for unit in ENABLED)}
    (taken,) = {slots[task] for task in heavy}
    # Airflow's default pool, which always exists, has 128 slots.
    assert 2 * taken < 128 - 20
    assert 3 * taken > 128
    daily = parsed["dags"]["daily_retraining"]["weights"]
    assert min(parsed["dags"]["rollback"]["weights"].values()) > max(daily.values())


def test_the_longest_builds_begin_first_and_keep_nobody_from_a_repair(
    parsed: dict[str, Any],
) -> None:
    weights = parsed["dags"]["daily_retraining"]["weights"]
    builds = {unit: weights[f"{unit}.build"] for unit in ENABLED}
    assert sorted(builds, key=builds.__getitem__, reverse=True) == [
        "ctr_pmml",
        "embeddings",
        "recs",
        "interest_ranker",
        "embedding_mlp",
    ]
    for repair in ("online_check", "restore"):
        assert max(builds.values()) < min(parsed["dags"][repair]["weights"].values())


def test_days_of_a_backfill_take_turns_at_the_lake(daily: dict[str, Any]) -> None:
    assert {task for task, n in daily["at_once"].items() if n == 1} == {"ingest", "features"}


def test_a_run_that_takes_too_long_is_told(daily: dict[str, Any]) -> None:
    assert daily["deadlines"] == ["4:00:00"]


def test_what_goes_live_updates_an_asset(parsed: dict[str, Any]) -> None:
    outlets = parsed["dags"]["daily_retraining"]["outlets"]
    for unit in ENABLED:
        assert outlets[f"{unit}.activate"] == [f"ferry_{unit}"]
    assert parsed["dags"]["rollback"]["outlets"] == {"roll_back": ["ferry_rollback"]}
