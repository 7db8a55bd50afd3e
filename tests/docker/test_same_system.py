"""The containers against the embedded mode: the same system, in another place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from local import environment
from local.credentials import Secrets
from local.home import Home
from pipelines.config import PROJECT_ROOT, Settings, load_pipeline_config
from tests.docker import composition
from tests.docker.composition import Services

#: What only the embedded mode sets.
_ONLY_EMBEDDED = {
    "SPARK_LOCAL_IP",  # there, Spark must not listen beyond loopback
    "FERRY_HOME",  # where the embedded services leave their environment file
    "JAVA_HOME",  # part of the image
}
#: What only the containers set.
_ONLY_CONTAINERS = {
    "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK",  # for the container's health check
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER",  # on a volume that Airflow's parts share
    "FERRY_REDIS_PREFIX",  # may be changed in .env
    "FERRY_HEAVY_TASKS",
    "FERRY_SPARK_DRIVER_MEMORY",
    "SPARK_SECRET",
    "SPARK_CONF_DIR",
    "SPARK_CORES_OF_A_STEP",
    "SPARK_EXECUTOR_MEMORY",
    "SPARK_LOCAL_DIRS",
    "TMPDIR",
}
#: Settings of Airflow whose values differ because the place does.
_OTHER_VALUES = {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",  # Postgres instead of SQLite
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__CORE__PLUGINS_FOLDER",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__API__BASE_URL",
    "AIRFLOW__API__HOST",
    "AIRFLOW__API__PORT",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
}


def test_driver_and_executors_run_the_same_image_and_see_the_same_lake(services: Services) -> None:
    driver, worker = services["airflow-scheduler"], services["spark-worker"]
    assert driver["image"] == worker["image"] == services["spark-master"]["image"]
    lake = "lake:/srv/ferry/lake"
    assert lake in driver["volumes"] and lake in worker["volumes"]
    assert worker["networks"] == ["backend"] and "backend" in driver["networks"]
    assert driver["hostname"] == "airflow-scheduler"
    assert driver["environment"]["SPARK_SECRET"] == worker["environment"]["SPARK_SECRET"]


def test_a_step_leaves_room_for_another_one(services: Services) -> None:
    worker, driver = (services[n]["environment"] for n in ("spark-worker", "airflow-scheduler"))
    steps = int(driver["FERRY_HEAVY_TASKS"])
    assert load_pipeline_config(PROJECT_ROOT / "pipeline.yaml").operations.heavy_tasks is None
    # A rollback must find a free process while all of them train.
    assert steps < int(driver["AIRFLOW__CORE__PARALLELISM"])
    assert steps * int(driver["SPARK_CORES_OF_A_STEP"]) <= int(worker["SPARK_WORKER_CORES"])
    assert steps * _megabytes(driver["SPARK_EXECUTOR_MEMORY"]) <= _megabytes(
        worker["SPARK_WORKER_MEMORY"]
    )


def _megabytes(text: str) -> int:
    return int(text[:-1]) * {"m": 1, "g": 1024}[text[-1]]


def test_model_servers_have_the_embedded_ones_flags(services: Services, tmp_path: Path) -> None:
    from local.commands import model_server_command

    flags = dict(_flag(a) for a in model_server_command(tmp_path / "c", 1, 2).argv if "=" in a)
    for name in ("tf-serving-1", "tf-serving-2"):
        command = dict(_flag(argument) for argument in services[name]["command"])
        environment_ = services["airflow-scheduler"]["environment"]
        assert command.keys() == flags.keys()
        assert command["--model_config_file"] == f"{environment_['FERRY_MODEL_DIR']}/models.config"
        for flag in flags:
            if "retr" in flag or "labels" in flag:
                assert command[flag] == flags[flag]


def _flag(argument: str) -> tuple[str, str]:
    name, value = argument.split("=", maxsplit=1)
    return name, value


def test_batching_stays_off_while_models_have_a_signature_that_it_refuses(
    services: Services,
) -> None:
    """TensorFlow Serving batches every signature, and refuses inputs of unequal numbers of rows."""
    from pipelines.online.tf_serving import RANK_SIGNATURE

    assert RANK_SIGNATURE
    for name in ("tf-serving-1", "tf-serving-2"):
        assert not [each for each in services[name]["command"] if "batching" in each]


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of Airflow in the embedded mode."""
    monkeypatch.setenv("FERRY_HOME", str(tmp_path))
    # As many steps at a time as in the containers, whatever this machine is.
    monkeypatch.setenv("FERRY_HEAVY_TASKS", "2")
    home = Home()
    home.make_folders()
    return environment.airflow_environment(home, Secrets(), "daily")


def test_tasks_have_the_embedded_modes_variables(
    embedded: dict[str, str], services: Services
) -> None:
    containers = services["airflow-scheduler"]["environment"]
    assert embedded.keys() - containers.keys() <= _ONLY_EMBEDDED
    assert containers.keys() - embedded.keys() == _ONLY_CONTAINERS
    airflow = {name for name in embedded if name.startswith("AIRFLOW__")}
    assert {name for name in airflow if embedded[name] != containers[name]} == _OTHER_VALUES


def test_connections_have_the_embedded_modes_fields(
    embedded: dict[str, str], services: Services
) -> None:
    containers = services["airflow-scheduler"]["environment"]
    for name in (name for name in embedded if name.startswith("AIRFLOW_CONN_")):
        ours, theirs = json.loads(containers[name]), json.loads(embedded[name])
        assert ours["conn_type"] == theirs["conn_type"]
        assert ours.get("extra", {}).keys() == theirs.get("extra", {}).keys()
        assert ours.keys() - theirs.keys() <= {"port"}


def test_connections_and_the_command_line_mean_the_same(services: Services) -> None:
    variables = services["airflow-scheduler"]["environment"]
    redis, s3, serving = (
        json.loads(variables[f"AIRFLOW_CONN_FERRY_{name}"])
        for name in ("REDIS", "S3", "TF_SERVING")
    )
    assert variables["FERRY_REDIS_URL"] == (
        f"redis://:{redis['password']}@{redis['host']}:{redis['port']}/{redis['schema']}"
    )
    assert {
        "AWS_ACCESS_KEY_ID": s3["login"],
        "AWS_SECRET_ACCESS_KEY": s3["password"],
        "AWS_DEFAULT_REGION": s3["extra"]["region_name"],
        "FERRY_S3_ENDPOINT_URL": s3["extra"]["endpoint_url"],
        "FERRY_BUCKET": s3["extra"]["bucket"],
        "FERRY_TF_SERVING": serving["extra"]["replicas"],
        "FERRY_MODEL_DIR": serving["extra"]["model_dir"],
    }.items() <= variables.items()
    spark = json.loads(variables["AIRFLOW_CONN_SPARK_DEFAULT"])
    assert variables["FERRY_SPARK_MASTER"] == f"{spark['host']}:{spark['port']}"


@pytest.mark.parametrize("service", ["airflow-scheduler", "cli"])
def test_the_library_finds_every_service(
    service: str, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = services[service]["environment"]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    read = {
        str(field.validation_alias or f"FERRY_{name.upper()}")
        for name, field in Settings.model_fields.items()
    }
    # A server of one's own has keys, and no sessions.
    assert read - set(variables) == {"AWS_SESSION_TOKEN"}
    hosts = {replica.host for replica in settings.tf_serving}
    assert hosts == {name for name in services if name.startswith("tf-serving-")}
    for text in (settings.redis_url.get_secret_value(), str(settings.s3_endpoint_url)):
        host = re.sub(r"^.*(@|//)", "", text).split(":")[0]
        assert host in services and services[host]["networks"] == ["backend"]


def test_airflows_parts_share_their_keys(services: Services) -> None:
    shared = ("CORE__FERNET_KEY", "API_AUTH__JWT_SECRET", "API__SECRET_KEY")
    for name in shared:
        assert (
            len(
                {
                    services[part]["environment"][f"AIRFLOW__{name}"]
                    for part in composition.AIRFLOW_PARTS
                }
            )
            == 1
        )
