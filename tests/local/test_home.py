"""The home of the embedded services: ports, secrets, environment."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values
from sqlalchemy import create_engine

from local.credentials import load_secrets
from local.environment import airflow_environment, ferry_environment, write_environment_file
from local.home import Home, load_home
from pipelines.config import load_settings
from pipelines.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("FERRY_HOME", str(tmp_path / "home"))
    home = load_home()
    home.make_folders()
    return home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_ports_follow_the_base_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_PORT_BASE", "20000")
    monkeypatch.setenv("FERRY_S3_PORT", "21000")
    home = load_home()
    numbers = [home.port(s).number for s in ("airflow", "redis", "s3", "tf_grpc", "tf_rest")]
    assert numbers == [20000, 20001, 21000, 20003, 20004]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FERRY_REDIS_PORT": "high"}, "FERRY_REDIS_PORT: .*got 'high'"),
        ({"FERRY_REDIS_PORT": "70000"}, "FERRY_REDIS_PORT"),
        ({"FERRY_REDIS_PORT": "18080"}, "FERRY_REDIS_PORT and FERRY_AIRFLOW_PORT are both 18080"),
        ({"FERRY_REDIS_MAXMEMORY": "much"}, "FERRY_REDIS_MAXMEMORY"),
    ],
)
def test_a_malformed_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    monkeypatch.delenv("FERRY_PORT_BASE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        load_home()


def test_secrets_are_random_and_kept(home: Home, tmp_path: Path) -> None:
    first = load_secrets(home)
    assert load_secrets(home) == first
    home.secrets_file.unlink()
    assert load_secrets(home).redis_password != first.redis_password


def test_a_damaged_secrets_file_is_explained(home: Home) -> None:
    home.secrets_file.write_text("{")
    with pytest.raises(ConfigError, match=r"secrets\.json is damaged"):
        load_secrets(home)


def test_files_with_secrets_are_private(home: Home) -> None:
    secrets = load_secrets(home)
    write_environment_file(home, secrets)
    airflow_environment(home, secrets, "none")
    assert mode(home.root) == 0o700
    for file in (home.secrets_file, home.environment_file, home.airflow / "passwords.json"):
        assert mode(file) == 0o600
    assert secrets.redis_password not in repr(secrets)


def test_the_library_reads_the_environment_file(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = load_secrets(home)
    write_environment_file(home, secrets)
    assert dotenv_values(home.environment_file) == ferry_environment(home, secrets)
    for name in ferry_environment(home, secrets):
        # Set first, so that what load_settings sets is taken back after the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    settings = load_settings()
    assert settings.redis_url.get_secret_value().endswith(f"@{home.address('redis')}/0")
    assert settings.tf_serving[0].grpc == home.address("tf_grpc")
    assert settings.lake.root == str(home.lake)


def test_airflow_connections_are_complete(home: Home) -> None:
    secrets = load_secrets(home)
    env = airflow_environment(home, secrets, "daily")
    s3 = json.loads(env["AIRFLOW_CONN_FERRY_S3"])
    assert (s3["login"], s3["password"]) == (secrets.s3_access_key, secrets.s3_secret_key)
    assert s3["extra"]["bucket"] == "ferry"
    serving = json.loads(env["AIRFLOW_CONN_FERRY_TF_SERVING"])
    assert serving["extra"]["replicas"] == env["FERRY_TF_SERVING"]
    assert json.loads(env["AIRFLOW_CONN_SPARK_DEFAULT"])["host"].startswith("local[")


def test_parts_of_airflow_wait_for_each_others_writes(home: Home) -> None:
    env = airflow_environment(home, load_secrets(home), "none")
    engine = create_engine(env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() == 90_000
    engine.dispose()
    assert (home.airflow / "airflow.db").exists()
