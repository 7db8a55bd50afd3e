"""`make run`'s program on tiny data, under the real scheduler, and the client on its outcome."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.airflow_api import AirflowApi
from local.health import free_ports
from local.home import load_home
from local.run import connect
from local.stack import Stack
from local.task_log import log_file
from pipelines.config import PROJECT_ROOT
from pipelines.errors import ServiceError

RUN_DATE = "2026-03-05"
LIVE = 202603050001
EARLIER_DATE = "2026-03-04"
EARLIER = 202603040001
USERS, ITEMS = 60, 60
#: The units that `pipeline.yaml` enables.
BUILT = ("recs", "embeddings", "interest_ranker", "ctr_pmml", "embedding_mlp")
KINDS = (("Action", "Thriller"), ("Romance", "Drama"))

# A busy machine with two cores takes several times as long as one with nothing else to do.
_RUN_SECONDS = 1500
_DAG_SECONDS = 600
pytestmark = pytest.mark.timeout(_RUN_SECONDS + 300)


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
            timeout=_RUN_SECONDS,
            check=False,
        )

    def ferry(self, *arguments: str) -> Any:
        """Return the JSON that a `ferry` command prints."""
        result = self.run("pipelines.cli", *arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    @contextmanager
    def airflow(self) -> Iterator[Dags]:
        """Have services and Airflow up, without a schedule, and with `recs` alone enabled.

        What runs so already is left as it is.
        """
        environment = {**self.environment, "FERRY_CONFIG": str(self.folder / "recs.yaml")}
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
            if stack.airflow.is_running():
                since = datetime.min.replace(tzinfo=UTC)
            stack.airflow_up(None)
            with connect(stack) as api:
                yield Dags(api, home.airflow, stack.airflow.is_running, since)


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
        run_id = self.trigger(dag_id, conf)
        deadline = time.monotonic() + _DAG_SECONDS
        while (state := self.api.run_state(dag_id, run_id)) in ("queued", "running"):
            assert self.is_alive()
            assert time.monotonic() < deadline, self.api.task_instances(dag_id, run_id)
            time.sleep(0.5)
        tasks = {task.task_id: task for task in self.api.task_instances(dag_id, run_id)}
        logs = {}
        for name, task in tasks.items():
            log = log_file(self.airflow_home, dag_id, run_id, name, max(1, task.try_number))
            logs[name] = log.read_text() if log.exists() else ""
        return DagRun(run_id, state, {n: task.state for n, task in tasks.items()}, logs)


def write_movielens(folder: Path) -> None:
    """Two tastes: even users like even items. The last lines of the ratings are broken."""
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
                likes = item % 2 == user % 2
                rating = rng.choice([4.0, 4.5, 5.0] if likes else [0.5, 1.0, 2.0])
                writer.writerow([user, item, rating, newest - position * 86_400 - user])
        writer.writerow([1, 2, "many", newest])
        writer.writerow([1, 2, 9.5, newest])
        writer.writerow([1, 2])


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("ferry")
    write_movielens(folder / "movielens")
    config = yaml.safe_load((PROJECT_ROOT / "pipeline.yaml").read_text())
    config["models"] = {
        "recs": {"als": {"rank": 8, "iterations": 5}, "list_size": 10},
        "embeddings": {"dimension": 8, "neighbours": 10, "item2vec": {"iterations": 3}},
        "ctr_pmml": {
            "model": "logistic_regression",
            "logistic_regression": {"iterations": 10},
        },
        "interest_ranker": {
            "dimension": 4,
            "interests": 2,
            "hidden": [8],
            "epochs": 4,
            "batch_size": 32,
            "learning_rate": 0.01,
        },
        "embedding_mlp": {
            "dimension": 4,
            "hidden": [8],
            "epochs": 8,
            "batch_size": 32,
            "learning_rate": 0.01,
        },
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(config))
    for unit in set(BUILT) - {"recs"}:
        config["models"][unit]["enabled"] = False
    (folder / "recs.yaml").write_text(yaml.safe_dump(config))
    names = ("AIRFLOW", "REDIS", "S3", "TF_GRPC", "TF_REST")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("FERRY_", "AIRFLOW", "AWS_"))}
    installed = Installation(
        {
            **keep,
            "FERRY_HOME": str(folder / "home"),
            "FERRY_CONFIG": str(folder / "pipeline.yaml"),
            **{f"FERRY_{name}_PORT": str(port) for name, port in ports.items()},
        },
        folder,
    )
    try:
        yield installed
    finally:
        down = installed.run("local", "down")
        assert down.returncode == 0, down.stderr


@pytest.fixture(scope="module")
def first_run(installation: Installation) -> subprocess.CompletedProcess[str]:
    data = f"--data={installation.folder / 'movielens'}"
    return installation.run("local", "run", data, f"--run-date={RUN_DATE}")


@pytest.fixture(scope="module")
def released(
    installation: Installation, first_run: subprocess.CompletedProcess[str]
) -> Installation:
    assert first_run.returncode == 0, first_run.stdout + first_run.stderr
    return installation


def test_the_run_ends_with_what_went_live(first_run: subprocess.CompletedProcess[str]) -> None:
    output = first_run.stdout
    assert first_run.returncode == 0, output + first_run.stderr
    for unit in BUILT:
        assert unit in output
    assert "ndcg_at_10" in output
    assert "popularity" in output, "no baseline stands beside the metric"
    assert "progress" in output or "rows" in output
    assert "Try next" in output


def test_every_unit_is_live_with_this_runs_version(released: Installation) -> None:
    status = {unit["unit"]: unit for unit in released.ferry("status")}
    assert set(status) == set(BUILT)
    assert {unit["live"]["version"] for unit in status.values()} == {LIVE}
    for unit in ("interest_ranker", "embedding_mlp"):
        assert "AVAILABLE" in str(status[unit]["replicas"])


def test_users_get_items_of_their_taste(released: Installation) -> None:
    for user in (10, 11):
        answer = released.ferry("recommend", str(user), "--count", "5")
        assert len(answer["items"]) == 5
        assert all(item["title"] for item in answer["items"])
        taste = [int(item["item_id"]) % 2 == user % 2 for item in answer["items"]]
        assert sum(taste) >= 4, answer


def test_similar_items_are_of_the_same_kind(released: Installation) -> None:
    answer = released.ferry("similar", "4", "--count", "5")
    assert sum(int(item["item_id"]) % 2 == 0 for item in answer["items"]) >= 4
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


def test_every_way_of_ranking_answers(released: Installation) -> None:
    answers = released.ferry("rank", "10", "3", "4", "5", "6", "--by", "all")
    assert set(answers) == {"embeddings", "interests", "pmml", "tf_serving"}
    for method, answer in answers.items():
        scores = [item["score"] for item in answer["items"]]
        assert scores == sorted(scores, reverse=True), (method, answer)
        assert len(set(scores)) > 1, (method, answer)
        assert {item["item_id"] for item in answer["items"]} == {"3", "4", "5", "6"}
    # The vectors of two tastes are far apart, also after a few epochs on little data.
    best = [int(item["item_id"]) for item in answers["embeddings"]["items"][:2]]
    assert set(best) == {4, 6}


def test_strangers_get_an_answer(released: Installation) -> None:
    assert released.ferry("recommend", "no such user")["items"]
    assert "unknown" in released.ferry("similar", "no such item")["note"]
    answers = released.ferry("rank", "no such user", "4", "no such item")
    for method in ("interests", "pmml", "tf_serving"):
        assert len(answers[method]["items"]) == 2
        assert all(item["score"] is not None for item in answers[method]["items"])


def test_bad_rows_are_quarantined_and_counted(released: Installation) -> None:
    home = Path(released.environment["FERRY_HOME"])
    summary = json.loads((home / f"lake/runs/{LIVE}/ingest.json").read_text())
    assert sum(summary["quarantined"].values()) == 3
    accounted = summary["accepted"] + 3 + summary["exact_duplicates"]
    assert summary["input_rows"] == accounted


def test_data_survive_down_and_up(released: Installation) -> None:
    before = released.ferry("recommend", "10")
    assert released.run("local", "down").returncode == 0
    refused = released.run("pipelines.cli", "recommend", "10")
    assert refused.returncode == 1
    assert refused.stderr.startswith("ferry: Redis at 127.0.0.1:")
    assert refused.stderr.count("\n") == 1
    assert released.run("local", "services").returncode == 0
    assert released.ferry("recommend", "10") == before
    assert released.ferry("rank", "10", "3", "4")["tf_serving"]["items"]


def test_bad_data_fails_the_run_in_one_line_and_keeps_what_is_live(released: Installation) -> None:
    before = released.ferry("status")
    config = yaml.safe_load(Path(released.environment["FERRY_CONFIG"]).read_text())
    config["data"]["events"]["columns"]["rating"] = "stars"
    broken = released.folder / "broken.yaml"
    broken.write_text(yaml.safe_dump(config))
    data = f"--data={released.folder / 'movielens'}"
    result = released.run("local", "run", data, f"--run-date={RUN_DATE}", FERRY_CONFIG=str(broken))
    assert result.returncode == 1
    assert "ingest failed" in result.stdout
    assert "stars" in result.stdout
    assert released.ferry("status") == before


def test_a_config_typo_is_one_line(installation: Installation) -> None:
    typo = installation.folder / "typo.yaml"
    typo.write_text("sede: 1\n")
    result = installation.run("local", "run", FERRY_CONFIG=str(typo))
    assert result.returncode == 1
    assert f"{typo}: " in result.stderr
    assert "Traceback" not in result.stderr


def live_recs(installed: Installation) -> dict[str, Any]:
    status: dict[str, Any] = next(u for u in installed.ferry("status") if u["unit"] == "recs")
    return status


@dataclass(frozen=True)
class Backfill:
    """A run for an older date than what is live, and what was live before and after it."""

    run: DagRun
    before: dict[str, Any]
    after: dict[str, Any]


@pytest.fixture(scope="module")
def backfill(released: Installation) -> Backfill:
    with released.airflow() as dags:
        before = live_recs(released)
        run = dags.run("daily_retraining", {"run_date": EARLIER_DATE})
    return Backfill(run, before, live_recs(released))


def test_a_run_for_an_older_date_is_built_and_recorded_only(
    released: Installation, backfill: Backfill
) -> None:
    run = backfill.run
    assert run.state == "success", run
    states = {
        **dict.fromkeys(("plan", "ingest", "features", "recs.build", "finish"), "success"),
        **dict.fromkeys(("recs.stage", "recs.activate"), "skipped"),
    }
    # The units that this configuration does not enable are not in the DAG.
    assert run.tasks == states
    reason = f"version {EARLIER} is older than {LIVE}, which is live"
    for step in ("stage", "activate"):
        assert reason in run.logs[f"recs.{step}"]
    assert backfill.after == backfill.before
    sealed = released.ferry("release", "show", "recs", str(EARLIER))
    assert sealed["run_date"] == EARLIER_DATE
    assert sealed["metrics"]
    assert {gate["verdict"] for gate in sealed["gates"]} <= {"passed", "not_compared"}
    home = Path(released.environment["FERRY_HOME"])
    summary = json.loads((home / f"lake/runs/{EARLIER}/summary.json").read_text())
    (recs,) = summary["units"]
    assert (recs["outcome"], recs["version"], recs["reason"]) == ("refused", LIVE, reason)


@pytest.mark.usefixtures("backfill")
def test_a_rollback_by_its_form(released: Installation) -> None:
    def form(version: int | None, reason: str) -> dict[str, Any]:
        return {"unit": "recs", "version": version, "reason": reason}

    with released.airflow() as dags:
        back = dags.run("rollback", form(EARLIER, "wrong prices"))
        assert back.state == "success", back
        status = live_recs(released)
        assert (status["live"]["version"], status["why"]) == (EARLIER, "wrong prices")
        assert back.run_id in status["who"]
        assert status["problems"] == []
        assert released.ferry("recommend", "10")["version"] == EARLIER
        # It was never live before, and nothing older was.
        none = dags.run("rollback", form(None, "also wrong"))
        assert none.state == "failed"
        assert f"recs {EARLIER} has no predecessor" in none.logs["roll_back"]
        forward = dags.run("rollback", form(LIVE, "they were right"))
        assert forward.state == "success", forward
    assert live_recs(released)["live"]["version"] == LIVE


@pytest.mark.parametrize(
    "bad",
    [{"unit": "rec"}, {"reason": "x"}, {"reason": "    "}, {"reason": ""}, {"version": "latest"}],
)
def test_a_bad_form_is_refused(released: Installation, bad: dict[str, Any]) -> None:
    form = {"unit": "recs", "version": LIVE, "reason": "wrong prices", **bad}
    with released.airflow() as dags:
        with pytest.raises(ServiceError, match=r"dagRuns: 4\d\d .*" + next(iter(bad))):
            dags.trigger("rollback", form)
        assert dags.api.unfinished_runs("rollback") == []


def test_a_dry_run_of_retention_removes_nothing(released: Installation) -> None:
    before = released.ferry("release", "list", "recs")
    with released.airflow() as dags:
        run = dags.run("retention", {"dry_run": True})
        assert run.state == "success", run
        plans = {u: dags.api.returned("retention", run.run_id, f"retain_{u}") for u in BUILT}
    for unit, planned in plans.items():
        assert planned["unit"] == unit
        assert planned["live"] == LIVE
        assert LIVE in planned["kept"]
        assert planned["object_storage"] == []
    assert released.ferry("release", "list", "recs") == before
