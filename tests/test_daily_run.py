"""`make run`'s program on tiny data, under the real scheduler, and the client on its outcome."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.installation import RUN_SECONDS, Installation, installed

RUN_DATE = "2026-03-05"
LIVE = 202603050001
#: The units that `pipeline.yaml` enables.
BUILT = ("recs", "embeddings", "interest_ranker", "ctr_pmml", "embedding_mlp")

pytestmark = pytest.mark.timeout(RUN_SECONDS + 300)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    models: dict[str, Any] = {
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
    with installed(tmp_path_factory.mktemp("ferry"), models) as installation:
        yield installation


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
    (path,) = [line for line in output.splitlines() if line.startswith("critical path: ")]
    assert re.match(r"critical path: plan \d+ s → ingest \d+ s \(Java starting \d+, ", path)
    assert re.search(r" → finish \d+ s; between them \d+ s$", path)
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
    config["data"]["items"]["columns"]["genres"] = "kinds"
    broken = released.folder / "broken.yaml"
    broken.write_text(yaml.safe_dump(config))
    data = f"--data={released.folder / 'movielens'}"
    result = released.run("local", "run", data, f"--run-date={RUN_DATE}", FERRY_CONFIG=str(broken))
    assert result.returncode == 1
    assert "ingest failed" in result.stdout
    assert "kinds" in result.stdout
    assert released.ferry("status") == before


def test_another_data_set_is_refused_before_anything_starts(released: Installation) -> None:
    assert released.run("local", "down").returncode == 0
    result = released.run("local", "run")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: the lake ")
    assert "and synthetic data is another source" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_config_typo_is_one_line(installation: Installation) -> None:
    typo = installation.folder / "typo.yaml"
    typo.write_text("sede: 1\n")
    result = installation.run("local", "run", FERRY_CONFIG=str(typo))
    assert result.returncode == 1
    assert f"{typo}: " in result.stderr
    assert "Traceback" not in result.stderr
