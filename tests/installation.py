"""A whole Ferry of a test's own: its commands, its Airflow, and a data set with two tastes."""

from __future__ import annotations

import csv
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from local.airflow_api import AirflowApi
from local.environment import Schedule
from local.health import free_ports
from local.home import load_home
from local.run import connect
from local.stack import Stack
from local.task_log import log_file
from pipelines.config import PROJECT_ROOT
from pipelines.models_config import ModelsConfig
from pipelines.patience import Deadline

USERS, ITEMS = 60, 60
KINDS = (("Action", "Thriller"), ("Romance", "Drama"))

# A busy machine with two cores takes several times as long as one with nothing else to do.
RUN_SECONDS = 1500
_DAG_SECONDS = 1200


@dataclass(frozen=True)
class Installation:
    """A Ferry of this test's own: folder, ports, configuration."""

    environment: dict[str, str]
    folder: Path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            env={**self.environment, **environment},
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    def ferry(self, *arguments: str) -> Any:
        """Return the JSON that a `ferry` command prints."""
        result = self.run("pipelines.cli", *arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    @contextmanager
    def airflow(
        self, schedule: Schedule | None = None, *, without: Collection[str] = ()
    ) -> Iterator[Dags]:
        """Have services and Airflow up, without a schedule, and with `recs` alone enabled.

        What runs so already is left as it is. `without` some of this installation's variables
        Airflow is started for the block alone.
        """
        environment = {**self.environment, "FERRY_CONFIG": str(self.folder / "recs.yaml")}
        for name in without:
            del environment[name]
        with pytest.MonkeyPatch.context() as patch:
            for name in set(os.environ) - set(environment):
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            home = load_home()
            stack = Stack(home, lambda _: None)
            stack.services_up()
            # Other units make other DAGs: what was parsed before is not what is to run.
            since = datetime.now(UTC)
            if without:
                stack.airflow.stop()
            elif stack.airflow.is_running():
                since = datetime.min.replace(tzinfo=UTC)
            stack.airflow_up(schedule)
            try:
                with connect(stack) as api:
                    yield Dags(api, home.airflow, stack.airflow.is_running, since)
            finally:
                if without:
                    stack.airflow.stop()

    def kill_airflow(self) -> None:
        """End Airflow and its tasks as a power failure would that lasts for an hour.

        So the next scheduler need not wait for minutes before it takes this one for dead.
        """
        airflow = self.folder / "home" / "airflow"
        for process in psutil.process_iter():
            try:
                environment = process.environ().get("AIRFLOW_HOME")
            except psutil.Error:
                continue
            if environment == str(airflow):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        with closing(sqlite3.connect(airflow / "airflow.db")) as database, database:
            database.execute(
                "UPDATE job SET latest_heartbeat = datetime(latest_heartbeat, '-1 hour')"
            )


@dataclass(frozen=True)
class DagRun:
    """A run that has ended."""

    run_id: str
    state: str
    tasks: dict[str, str | None]
    #: By task, all that was logged.
    logs: dict[str, str]


@dataclass(frozen=True)
class Dags:
    """The DAGs of an installation, by Airflow's REST API."""

    api: AirflowApi
    airflow_home: Path
    is_alive: Callable[[], bool]
    #: DAGs must have been parsed after this.
    since: datetime

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        run_id = f"manual__{datetime.now(UTC).isoformat()}"
        self.api.wait_for_dag(dag_id, self.since, self.is_alive)
        self.api.set_paused(dag_id, False)
        self.api.trigger(dag_id, run_id, conf)
        return run_id

    def run(self, dag_id: str, conf: dict[str, Any]) -> DagRun:
        return self.wait(dag_id, self.trigger(dag_id, conf))

    def version(self, dag_id: str, run_id: str) -> int:
        """Return the version that a run builds."""
        return int(self.api.returned(dag_id, run_id, "plan")["version"])

    def wait(self, dag_id: str, run_id: str) -> DagRun:
        """Wait for a run's end."""
        deadline = Deadline(_DAG_SECONDS)
        while (state := self.api.run_state(dag_id, run_id)) in ("queued", "running"):
            assert self.is_alive()
            assert not deadline.is_over, self.api.task_instances(dag_id, run_id)
            # Every question costs Airflow some of the cores that its tasks wait for.
            time.sleep(2)
        tasks = {task.task_id: task for task in self.api.task_instances(dag_id, run_id)}
        logs = {}
        for name, task in tasks.items():
            log = log_file(self.airflow_home, dag_id, run_id, name, max(1, task.try_number))
            logs[name] = log.read_text() if log.exists() else ""
        return DagRun(run_id, state, {n: task.state for n, task in tasks.items()}, logs)


@contextmanager
def installed(
    folder: Path,
    models: dict[str, Any],
    *,
    operations: dict[str, Any] | None = None,
    empty_day: int | None = None,
    **environment: str,
) -> Iterator[Installation]:
    """Have a Ferry in `folder`, with its data and these `models`, and end what runs of it.

    ``recs.yaml`` is the configuration in which `recs` is the only one. `empty_day` as of
    :func:`write_movielens`.
    """
    write_movielens(folder / "movielens", empty_day)
    config = yaml.safe_load((PROJECT_ROOT / "pipeline.yaml").read_text())
    config["models"] = models
    config["operations"] |= operations or {}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(config))
    others = set(ModelsConfig().enabled_units()) - {"recs"}
    config["models"] = {unit: {"enabled": False} for unit in others} | {"recs": models["recs"]}
    (folder / "recs.yaml").write_text(yaml.safe_dump(config))
    names = ("AIRFLOW", "REDIS", "S3", "TF_GRPC", "TF_REST")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("FERRY_", "AIRFLOW", "AWS_"))}
    installation = Installation(
        {
            **keep,
            "FERRY_HOME": str(folder / "home"),
            "FERRY_CONFIG": str(folder / "pipeline.yaml"),
            **{f"FERRY_{name}_PORT": str(port) for name, port in ports.items()},
            **environment,
        },
        folder,
    )
    try:
        yield installation
    finally:
        down = installation.run("local", "down")
        assert down.returncode == 0, down.stderr


def write_movielens(folder: Path, empty_day: int | None = None) -> None:
    """Two tastes: even users like even items. The last lines of the ratings are broken.

    There are events on each of 25 days but the one `empty_day` days before the last.
    """
    rng = random.Random(7)
    folder.mkdir()
    with (folder / "movies.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["movieId", "title", "genres"])
        for item in range(ITEMS):
            genres = "|".join(KINDS[item % 2])
            writer.writerow([item, f'"{item}", or the <b>Movie</b> ({1980 + item % 30})', genres])
    with (folder / "ratings.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["userId", "movieId", "rating", "timestamp"])
        newest = 1_600_000_000
        for user in range(USERS):
            liked = rng.sample(range(user % 2, ITEMS, 2), 17)
            disliked = rng.sample(range(1 - user % 2, ITEMS, 2), 8)
            for position, item in enumerate(rng.sample([*liked, *disliked], 25)):
                if position == empty_day:
                    continue
                likes = item % 2 == user % 2
                rating = rng.choice([4.0, 4.5, 5.0] if likes else [0.5, 1.0, 2.0])
                writer.writerow([user, item, rating, newest - position * 86_400 - user])
        writer.writerow([1, 2, "many", newest])
        writer.writerow([1, 2, 9.5, newest])
        writer.writerow([1, 2])
