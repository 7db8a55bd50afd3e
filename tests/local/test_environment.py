from __future__ import annotations

from pathlib import Path

import pytest

from local.credentials import Secrets
from local.environment import airflow_environment
from local.home import Home

#: A closed lid, a snapshot, a machine that swaps.
STALL_SECONDS = 60


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("FERRY_HOME", str(tmp_path))
    home = Home()
    home.make_folders()
    return airflow_environment(home, Secrets(), "none")


def test_airflow_outlasts_a_stall(environment: dict[str, str]) -> None:
    scheduler = int(environment["AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD"])
    # What a killed scheduler left is looked for every 300 s: a greater limit would find it later.
    assert 2 * STALL_SECONDS <= scheduler < 300
    locked = int(environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].rpartition("timeout=")[2])
    api = int(environment["AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT"])
    assert STALL_SECONDS < locked < api
