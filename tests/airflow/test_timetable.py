"""The timetable as Airflow has it: out of its database, by the plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import PROJECT_ROOT


def said(program: str, home: Path) -> dict[str, Any]:
    """Return what a program says that runs beside an Airflow with Ferry's plugin."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "FERRY"))}
    result = subprocess.run(
        [sys.executable, "-m", f"tests.airflow.{program}"],
        env={
            **keep,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        },
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return told


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return said("timetable_answers", tmp_path_factory.mktemp("airflow"))


def test_it_comes_back_from_the_database(answers: dict[str, Any]) -> None:
    assert answers["equal"] == [True, True]
    assert answers["differs"]
    assert answers["texts"] == [
        ["0 3 * * 1", "0 3 * * 1 by the clock of Europe/Berlin; builds the last complete day"],
        ["by hand", "By hand only; a run builds a whole day (UTC)"],
    ]


def test_a_schedule_starts_one_run_for_the_newest_day(answers: dict[str, Any]) -> None:
    tonight = datetime.fromisoformat(answers["tonight"])
    day = tonight.replace(hour=0) - timedelta(days=1)
    assert answers["first"] == _iso(day, day + timedelta(days=1), tonight)


def test_after_a_run_of_the_timetable_before_comes_the_next_day(answers: dict[str, Any]) -> None:
    tomorrow = datetime.fromisoformat(answers["tonight"]) + timedelta(days=1)
    day = tomorrow.replace(hour=0) - timedelta(days=1)
    assert answers["after_old"] == _iso(day, day + timedelta(days=1), tomorrow)


def test_a_week_later(answers: dict[str, Any]) -> None:
    # The day ended at one and a half hours past midnight of Monday the ninth.
    assert answers["following"] == [
        "2026-03-07T23:00:00+00:00",
        "2026-03-08T23:00:00+00:00",
        "2026-03-09T02:00:00+00:00",
    ]


def test_nothing_starts_by_itself_without_a_schedule_or_after_the_end(
    answers: dict[str, Any],
) -> None:
    assert answers["by_hand"] is None
    assert answers["ended"] is None


def test_a_backfill_gets_every_day_from_the_first_to_the_last(answers: dict[str, Any]) -> None:
    """Of a weekly schedule, and of none."""
    assert answers["backfill"] == [
        [
            f"2026-11-{day - 1}T23:00:00+00:00",
            f"2026-11-{day}T23:00:00+00:00",
            f"2026-11-{day + 1}T00:30:01+00:00",
        ]
        for day in (24, 25, 26)
    ]
    starts = [start for start, _, _ in answers["backfill_by_hand"]]
    assert starts == [f"2026-11-{day}T00:00:00+00:00" for day in (24, 25, 26)]
    assert answers["periodic"]


def test_a_run_by_hand_is_for_the_last_complete_day(answers: dict[str, Any]) -> None:
    # Half a minute before half past one, the day on which the clock was changed is not complete.
    assert answers["manual"] == ["2026-03-27T23:00:00+00:00", "2026-03-28T23:00:00+00:00"]


def test_a_run_of_the_schedule_is_named_by_its_day(answers: dict[str, Any]) -> None:
    assert answers["names"] == [
        "scheduled__2026-11-24T00:00:00+01:00",
        "scheduled__2026-11-24T00:00:00+01:00",
        "manual__2026-11-26T00:00:00+00:00",
    ]


def test_a_schedule_that_is_none_of_days_is_refused(answers: dict[str, Any]) -> None:
    hourly, nightly, weekly = answers["refusals"]
    assert "starts several runs a day" in hourly
    assert "is no cron expression" in nightly
    assert weekly == ""


def test_runs_of_the_timetable_before_stand_in_the_way_of_none(tmp_path: Path) -> None:
    told = said("upgraded", tmp_path)
    last = datetime.fromisoformat(told["last"])
    day = last.replace(hour=0)
    assert told["old"] == _iso(*(last - timedelta(days=n) for n in (4, 3, 2, 0)))
    # The run that it had this night counts for the day on which its interval began.
    tomorrow = day + timedelta(days=1)
    assert told["upcoming"] == _iso(tomorrow, tomorrow + timedelta(days=1, hours=3))
    # Airflow leaves out in silence what has the name of an older run.
    assert told["backfilled"] == _iso(*(day - timedelta(days=n) for n in (5, 4, 3, 2, 1, 0)))
    assert told["by_hand"] == [None, None]
    assert told["backfilled_by_hand"] == _iso(*(day - timedelta(days=n) for n in (7, 6)))


def _iso(*moments: datetime) -> list[str]:
    return [moment.isoformat() for moment in moments]
