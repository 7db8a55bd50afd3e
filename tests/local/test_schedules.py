"""Which DAGs `make up` switches on, and what it says of them: rules alone."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from local.airflow_api import NextRun
from local.schedules import Obstacle, describe_next, find_obstacle, should_be_on
from pipelines.config import PROJECT_ROOT, DataConfig, PipelineConfig, load_pipeline_config
from pipelines.data.identity import MovielensFolder, Origin, SyntheticWorld
from pipelines.lake import Lake

CONFIG = load_pipeline_config(PROJECT_ROOT / "pipeline.yaml")
DAY = date(2026, 3, 9)
NO_DATA = Obstacle("no data", is_certain=True)
ENDED = Obstacle("no newer data", is_certain=False)


@pytest.mark.parametrize(
    ("is_on", "was_switched_on", "obstacle", "expected"),
    [
        (False, False, None, True),
        (True, False, None, True),
        (True, True, None, True),
        # Somebody has paused it.
        (False, True, None, False),
        (False, False, NO_DATA, False),
        (True, True, NO_DATA, False),
        (False, False, ENDED, False),
        # Somebody has unpaused it although the data end, or an import is on its way.
        (True, True, ENDED, True),
        (True, False, ENDED, True),
    ],
)
def test_a_dag_is_switched_on_once(
    is_on: bool, was_switched_on: bool, obstacle: Obstacle | None, expected: bool
) -> None:
    found = should_be_on(is_on=is_on, was_switched_on=was_switched_on, obstacle=obstacle)
    assert found is expected


def reading(path: str) -> DataConfig:
    events = CONFIG.data.events.model_copy(update={"path": path})
    return CONFIG.data.model_copy(update={"events": events})


def land(lake: Lake, brought: SyntheticWorld | MovielensFolder | None, last_day: date) -> None:
    ratings = Path(lake.landing) / "ratings"
    ratings.mkdir(parents=True)
    (ratings / "ratings.csv").write_text("user_id\n")
    if brought:
        Origin(brought=brought, last_day=last_day).save(lake.origin)


def test_without_data_there_is_an_obstacle(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "of [one]"))
    empty = find_obstacle(CONFIG.data, lake, DAY)
    assert empty
    assert empty.is_certain
    assert empty.reason.startswith("no data yet: bring some in")
    land(lake, None, DAY)
    assert find_obstacle(CONFIG.data, lake, DAY) is None


@pytest.mark.parametrize(
    ("brought", "last_day", "is_in_the_way"),
    [
        (MovielensFolder(folder="/ml", shift_days=3), date(2026, 3, 8), True),
        (MovielensFolder(folder="/ml", shift_days=3), DAY, False),
        # It goes on by itself.
        (
            SyntheticWorld(users=1, items=1, days=1, seed=1, first_day=date(2026, 3, 8)),
            date(2026, 3, 8),
            False,
        ),
    ],
)
def test_data_that_have_ended_are_an_obstacle(
    tmp_path: Path,
    brought: SyntheticWorld | MovielensFolder,
    last_day: date,
    is_in_the_way: bool,
) -> None:
    lake = Lake(str(tmp_path))
    land(lake, brought, last_day)
    found = find_obstacle(CONFIG.data, lake, DAY)
    assert (found is not None) is is_in_the_way
    if found:
        assert not found.is_certain
        assert "/ml ends on 2026-03-08, and the next run, for 2026-03-09, fails" in found.reason


@pytest.mark.parametrize(
    ("path", "is_in_the_way"),
    [
        ("{folder}/days/*.csv", False),
        ("{folder}/days", False),
        ("{folder}/days/{{run_date}}.csv", False),
        ("{folder}/other/*.csv", True),
        ("{folder}/empty", True),
        # Not to be looked for from here.
        ("s3a://bucket/days", False),
        ("{folder}/{{{{a,b}}}}/*.csv", False),
    ],
)
def test_a_source_of_ones_own_without_a_file_is_an_obstacle(
    tmp_path: Path, path: str, is_in_the_way: bool
) -> None:
    for name in ("days", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "days" / "2026-03-01.csv").touch()
    (tmp_path / "empty" / "_SUCCESS").touch()
    own = reading(path.format(folder=tmp_path))
    assert (find_obstacle(own, Lake(str(tmp_path)), DAY) is not None) is is_in_the_way


NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def due(day: int) -> NextRun:
    return NextRun(
        run_after=datetime(2026, 3, day, 3, tzinfo=UTC),
        interval_start=datetime(2026, 3, day - 1, tzinfo=UTC),
    )


def by_schedule(expression: str | None) -> PipelineConfig:
    operations = CONFIG.operations.model_copy(update={"schedule": expression})
    return CONFIG.model_copy(update={"operations": operations})


@pytest.mark.parametrize(
    ("schedule", "known", "text"),
    [
        ("0 3 * * *", due(11), "next run 2026-03-11 03:00 UTC, for 2026-03-10"),
        ("0 3 * * *", None, "next run 2026-03-11 03:00 UTC, for 2026-03-10"),
        (
            "0 3 * * *",
            due(10),
            "a run for 2026-03-09 starts now; next run 2026-03-11 03:00 UTC, for 2026-03-10",
        ),
        ("0 5 * * 1", due(11), "next run 2026-03-16 05:00 UTC, for 2026-03-15"),
        (None, None, "no schedule (operations.schedule): a run starts by hand only"),
    ],
)
def test_the_next_run_is_named_by_its_start_and_its_day(
    schedule: str | None, known: NextRun | None, text: str
) -> None:
    assert describe_next(by_schedule(schedule), known, NOW) == text
