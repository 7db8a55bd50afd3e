"""Progress and errors out of Airflow's task logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.task_log import error_of, progress_of, skip_reason_of


def write(log: Path, *entries: object) -> Path:
    log.write_text("".join(f"{e if isinstance(e, str) else json.dumps(e)}\n" for e in entries))
    return log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "attempt=1.log"


def failure(kind: str, message: str) -> dict[str, object]:
    cause = {"exc_type": "OSError", "exc_value": "the cause"}
    return {
        "event": "Task failed with exception",
        "error_detail": [{"exc_type": kind, "exc_value": message}, cause],
    }


def test_no_log_has_no_progress(log: Path) -> None:
    assert progress_of(log) is None


def test_the_latest_progress_counts_also_a_spark_steps(log: Path) -> None:
    write(
        log,
        {"event": "progress ingest: 1/4 steps (25%)", "logger": "ferry.progress"},
        {"event": "26/11/24 INFO progress ingest: 2/4 steps (50%) 10 rows", "logger": "spark"},
        {"event": "something else"},
        "not JSON",
    )
    assert progress_of(log) == "ingest: 2/4 steps (50%) 10 rows"


def test_a_line_that_is_being_written_is_left_out(log: Path) -> None:
    write(log, {"event": "progress a: 1 rows"})
    with log.open("a") as file:
        file.write('{"event": "progress b: ')
    assert progress_of(log) == "a: 1 rows"


def test_the_end_of_a_long_log_is_enough(log: Path) -> None:
    write(log, *[{"event": "x" * 1000} for _ in range(1000)], {"event": "progress c: 3 rows"})
    assert progress_of(log) == "c: 3 rows"


@pytest.mark.parametrize(
    ("kind", "message", "shown"),
    [
        ("AirflowFailException", "no column rating", "no column rating"),
        ("ValueError", "bad value", "ValueError: bad value"),
    ],
)
def test_the_error_is_the_exception_that_ended_the_task(
    log: Path, kind: str, message: str, shown: str
) -> None:
    assert error_of(write(log, {"event": "before"}, failure(kind, message))) == shown


def test_a_failed_process_is_shown_with_what_it_said(log: Path) -> None:
    spark = failure("AirflowException", "Cannot execute: spark-submit --master local. Error code 1")
    shown = error_of(write(log, {"event": "java.lang.OutOfMemoryError: Java heap space"}, spark))
    assert "java.lang.OutOfMemoryError: Java heap space" in shown


def test_a_killed_task_is_shown_with_its_last_lines(log: Path) -> None:
    shown = error_of(write(log, {"event": "training"}, {"event": "::endgroup::"}))
    assert "was its process killed?" in shown
    assert shown.endswith("training")


def test_a_task_says_why_it_skipped_itself(log: Path) -> None:
    write(
        log,
        {"event": "::group::Post Execute"},
        {"event": "Skipping task.", "reason": "recs is not enabled"},
    )
    assert skip_reason_of(log) == "recs is not enabled"
    write(log, {"event": "something else"})
    assert skip_reason_of(log) is None
    assert skip_reason_of(log.with_name("none.log")) is None
