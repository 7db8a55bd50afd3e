from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.config import PROJECT_ROOT, Replica, load_pipeline_config, load_settings
from pipelines.errors import ConfigError
from pipelines.gates_config import GatesConfig
from pipelines.lake import Lake

ENVIRONMENT = {
    "FERRY_LAKE": "/lake/",
    "FERRY_REDIS_URL": "redis://:secret@localhost:6379/0",
    "FERRY_BUCKET": "ferry",
    "FERRY_TF_SERVING": "a:8500:8501, b:1:2",
    "FERRY_MODEL_DIR": "/models",
}
MINIMAL = "data: {events: {path: e}, items: {path: i}}\n"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("FERRY_HOME", str(tmp_path))
    for name in ("FERRY_S3_ENDPOINT_URL", "FERRY_CONFIG", *ENVIRONMENT):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_settings_from_the_environment() -> None:
    settings = load_settings()
    assert settings.lake.ratings == "/lake/ratings"
    assert settings.tf_serving == (Replica("a", 8500, 8501), Replica("b", 1, 2))
    assert settings.tf_serving[0].grpc == "a:8500"
    assert settings.tf_serving[1].rest == "http://b:2"
    assert "secret" not in repr(settings)


def test_settings_from_the_file_of_the_embedded_services(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.delenv("FERRY_BUCKET")
    (tmp_path / "env").write_text("FERRY_BUCKET=embedded\nFERRY_LAKE=/ignored\n")
    settings = load_settings()
    environment.delenv("FERRY_BUCKET")
    assert settings.bucket == "embedded"
    assert settings.lake.root == "/lake"


def test_keys_for_another_s3_are_not_used_for_the_embedded_one(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("AWS_ACCESS_KEY_ID", "mine")
    (tmp_path / "env").write_text("FERRY_S3_ENDPOINT_URL=http://embedded\nAWS_ACCESS_KEY_ID=its\n")
    environment.setenv("FERRY_S3_ENDPOINT_URL", "http://other")
    load_settings()
    assert os.environ["AWS_ACCESS_KEY_ID"] == "mine"
    environment.delenv("FERRY_S3_ENDPOINT_URL")
    load_settings()
    environment.delenv("FERRY_S3_ENDPOINT_URL")
    assert os.environ["AWS_ACCESS_KEY_ID"] == "its"


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_a_missing_variable_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(ConfigError, match=f"environment variable {name} is not set: .*make up"):
        load_settings()


@pytest.mark.parametrize(
    ("value", "message"),
    [("host:8500", "'host:8500' is not host:grpc_port:rest_port"), (",", "names no replica")],
)
def test_a_wrong_replica_is_named(
    environment: pytest.MonkeyPatch, value: str, message: str
) -> None:
    environment.setenv("FERRY_TF_SERVING", value)
    with pytest.raises(ConfigError, match=f"FERRY_TF_SERVING: {message}"):
        load_settings()


def test_the_shipped_configuration_is_valid() -> None:
    config = load_pipeline_config(PROJECT_ROOT / "pipeline.yaml")
    assert config.models.enabled_units() == (
        "recs",
        "embeddings",
        "interest_ranker",
        "ctr_pmml",
        "embedding_mlp",
    )
    assert config.gates == GatesConfig(), "what it says are the defaults"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "sed: 1", "sed: unknown key"),
        (MINIMAL + "models: {recs: {rnak: 8}}", "models.recs.rnak: unknown key"),
        (MINIMAL + "models: {recs: {list_size: 0}}", "models.recs.list_size: .*greater.*got 0"),
        (
            MINIMAL + "models: {recs: {als: {rank: many}}}",
            "models.recs.als.rank: .*integer.*got 'many'",
        ),
        (
            MINIMAL + "models: {recs: {als: {enabled: false}, ease: {enabled: false}}}",
            "models.recs: .*one of als and ease must be enabled",
        ),
        (
            MINIMAL + "gates: {models: {recs: {auc: {floor: 1}}}}",
            "gates.models.recs.auc.floor: unknown key",
        ),
        (
            MINIMAL + "gates: {models: {recs: {auc: {champion: {relative: -1}}}}}",
            "gates.models.recs.auc.champion.relative: .*greater than or equal to 0.*got -1",
        ),
        (
            MINIMAL + "gates: {models: {recs: {auc: {limit: .nan}}}}",
            "gates.models.recs.auc.limit: .*finite",
        ),
        (
            MINIMAL + "gates: {models: {recs: {auc: {beats: {constant: .inf}}}}}",
            "gates.models.recs.auc.beats.constant: .*finite",
        ),
        (
            MINIMAL + "gates: {lists: {recs: {min_coverage: 7}}}",
            "gates.lists.recs.min_coverage: .*less than or equal to 1.*got 7",
        ),
        (
            MINIMAL + "gates: {data: {min_volume_ratio: 3, max_volume_ratio: 2}}",
            "gates.data: min_volume_ratio must be below max_volume_ratio",
        ),
        (
            MINIMAL + "gates: {data: {volume_days: 2}}",
            "gates.data: min_volume_days must not be above volume_days",
        ),
        ("seed: 1", "data: Field required"),
        ("data: {items: {path: i}}", "data.events: Field required"),
        ("data: {events: {path: e, format: xml}, items: {path: i}}", "data.events.format: .*'xml'"),
        (
            "data: {events: {path: e}, items: {path: i}, positive_rating: 9}",
            "data: positive_rating must lie between",
        ),
        (
            MINIMAL + "operations: {schedule: '@hourly'}",
            r"yaml: operations.schedule: '@hourly' starts several runs a day.*'0 3 \* \* \*'$",
        ),
        (MINIMAL + "operations: {schedule: nightly}", "yaml: operations.schedule: 'nightly' is no"),
        (
            "data: {events: {path: e}, items: {path: i}, time_zone: Berlin}",
            "data.time_zone: no time zone of this name.*got 'Berlin'",
        ),
        ("a: [", "line 1 is not YAML"),
        ("", "level.*valid dictionary"),
    ],
)
def test_a_wrong_configuration_is_one_line_with_the_path(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_pipeline_config(path)
    assert str(caught.value).startswith(f"{path}:")
    assert "\n" not in str(caught.value)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: No such file.*FERRY_CONFIG"):
        load_pipeline_config(tmp_path / "nowhere.yaml")


def test_placeholders_of_a_source_path(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text('data: {events: {path: "{landing}/{run_date}/x"}, items: {path: "{there}"}}')
    data = load_pipeline_config(path).data
    lake = Lake("/l")
    assert data.events.resolve(lake, "2026-01-02") == "/l/landing/2026-01-02/x"
    assert data.events.is_daily
    with pytest.raises(ConfigError, match=r"'\{there\}'.*\{landing\} and \{run_date\}"):
        data.items.resolve(lake, "2026-01-02")
