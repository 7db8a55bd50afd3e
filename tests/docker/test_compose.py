"""The rules that `docker-compose.yaml` keeps. No engine is needed, and none is started."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from local import environment
from local.credentials import Secrets
from local.home import Home
from pipelines.config import PROJECT_ROOT, Settings, load_pipeline_config
from tests.docker import composition

Services = dict[str, dict[str, Any]]

#: Run once and end; compose waits for their success.
ONE_SHOT = {"storage-init", "bucket-init", "airflow-init"}
#: Started by hand.
ON_DEMAND = {"cli"}
_TAGGED = re.compile(r"^[a-z0-9./-]+:v?\d+(\.\d+)+(-[a-z0-9.-]+)?$")
_AIRFLOW = ("airflow-api", "airflow-scheduler", "airflow-dag-processor")


def test_the_file_is_refused_without_each_secret(env: dict[str, str]) -> None:
    for name in env:
        with pytest.raises(KeyError, match=name):
            composition.load({key: value for key, value in env.items() if key != name})


def test_no_variable_becomes_empty_by_mistake() -> None:
    assert not composition.bare_variables()
    assert all(composition.optional_variables().values())


def test_no_secret_has_a_default_or_stands_in_the_file() -> None:
    secret = re.compile(r"PASSWORD|SECRET|_KEY", re.IGNORECASE)
    assert not [name for name in composition.optional_variables() if secret.search(name)]
    pairs = re.compile(r"^\s*-?\s*\"?([A-Z_]*(?:PASSWORD|SECRET|KEY)[A-Z_]*)\"?:\s*(.+)$", re.M)
    for name, value in pairs.findall(composition.COMPOSE_FILE.read_text()):
        if not name.endswith("PASSWORDS_FILE"):
            assert value.startswith("${") and ":?" in value, name


def test_images_are_pinned(services: Services) -> None:
    for name, service in services.items():
        assert _TAGGED.match(service["image"]), f"{name}: {service['image']}"
    base = (composition.COMPOSE_FILE.parent / "docker" / "Dockerfile").read_text()
    assert [_TAGGED.match(image) for image in re.findall(r"^FROM (\S+)", base, re.M)]


def test_model_servers_are_of_the_version_that_models_are_written_with(services: Services) -> None:
    locked = (composition.COMPOSE_FILE.parent / "requirements.txt").read_text()
    version = re.search(r"^tensorflow-serving-api==(\S+)", locked, re.M)
    assert version
    for name in ("tf-serving-1", "tf-serving-2"):
        assert services[name]["image"] == f"tensorflow/serving:{version[1]}"


def test_nothing_has_rights_that_it_does_not_need(services: Services) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys(), name
        user, group = service["user"].split(":")
        assert int(user) > 0 and int(group) > 0, name


def test_everything_is_bounded_and_starts_again(services: Services) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert {"max-size", "max-file"} <= service["logging"]["options"].keys(), name
        if name in ONE_SHOT | ON_DEMAND:
            assert service["restart"] == "no", name
        else:
            assert service["restart"] == "unless-stopped", name
            assert {"test", "interval", "timeout", "retries"} <= service["healthcheck"].keys(), name


def test_only_the_airflow_ui_is_published_and_only_on_loopback(services: Services) -> None:
    published = {name: each["ports"] for name, each in services.items() if each.get("ports")}
    assert published == {"airflow-api": ["127.0.0.1:8080:8080"]}
    assert not any(each.get("network_mode") == "host" for each in services.values())


def test_networks_let_nothing_out_but_the_ui(compose: dict[str, Any], services: Services) -> None:
    networks = compose["networks"]
    assert [name for name, each in networks.items() if not each.get("internal")] == ["ui"]
    assert [name for name, each in services.items() if "ui" in each.get("networks", ())] == [
        "airflow-api"
    ]
    # Models and executors have no business with Airflow's database.
    reach_postgres = {
        name for name, each in services.items() if "airflow" in each.get("networks", ())
    }
    assert reach_postgres == {"postgres", "airflow-init", *_AIRFLOW}


def test_everybody_shares_a_network_with_whom_they_wait_for(services: Services) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if other in ONE_SHOT:
                assert how["condition"] == "service_completed_successfully", name
            else:
                assert how["condition"] == "service_healthy", name
                assert set(service["networks"]) & set(services[other]["networks"]), (name, other)


def test_one_shot_services_are_waited_for(services: Services) -> None:
    """`up --wait` takes the end of a service for a failure unless another one depends on it."""
    waited = {other for each in services.values() for other in each.get("depends_on", ())}
    assert waited >= ONE_SHOT


def test_volumes_are_declared_used_and_writable_where_they_must_be(
    compose: dict[str, Any], services: Services
) -> None:
    mounts = {
        name: [volume.split(":") for volume in service.get("volumes", ())]
        for name, service in services.items()
    }
    named = {m[0] for each in mounts.values() for m in each if not m[0].startswith(".")}
    assert named == compose["volumes"].keys()
    for name, each in mounts.items():
        for source, target, *options in each:
            if source.startswith("."):
                assert options == ["ro"], name
                assert (composition.COMPOSE_FILE.parent / source).is_file(), source
            elif source in ("lake", "models"):
                assert target == f"/srv/ferry/{source}", name
    # Only Airflow's tasks and the `ferry` command write models.
    writers = {n for n, each in mounts.items() if ["models", "/srv/ferry/models"] in each}
    assert writers == {"storage-init", "airflow-scheduler", "cli"}
    for name in ("tf-serving-1", "tf-serving-2"):
        assert ["models", "/srv/ferry/models", "ro"] in mounts[name]


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
    steps = load_pipeline_config(PROJECT_ROOT / "pipeline.yaml").operations.heavy_tasks
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


# --- The environment: the same variables as in the embedded mode, and why others


#: What only the embedded mode sets.
_ONLY_EMBEDDED = {
    "FERRY_SPARK_JAVA_OPTIONS",  # a cluster's data are worth optimised code
    "SPARK_LOCAL_IP",  # there, Spark must not listen beyond loopback
    "FERRY_HOME",  # where the embedded services leave their environment file
    "JAVA_HOME",  # part of the image
}
#: What only the containers set.
_ONLY_CONTAINERS = {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",  # Postgres instead of SQLite
    "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK",  # for the container's health check
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER",  # on a volume that Airflow's parts share
    "FERRY_REDIS_PREFIX",  # may be changed in .env
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


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of Airflow in the embedded mode."""
    monkeypatch.setenv("FERRY_HOME", str(tmp_path))
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
        assert len({services[part]["environment"][f"AIRFLOW__{name}"] for part in _AIRFLOW}) == 1


def test_each_secret_goes_only_where_it_is_needed(env: dict[str, str], services: Services) -> None:
    def holders(variable: str) -> set[str]:
        return {
            name
            for name, service in services.items()
            if any(env[variable] in str(v) for v in (service.get("environment") or {}).values())
        }

    airflow = {"airflow-init", *_AIRFLOW}
    assert holders("AIRFLOW_ADMIN_PASSWORD") == {"airflow-api"}
    assert holders("SPARK_SECRET") == {"spark-master", "spark-worker", "airflow-scheduler", "cli"}
    assert holders("POSTGRES_PASSWORD") == {"postgres", *airflow}
    assert holders("AIRFLOW_FERNET_KEY") == airflow


def test_no_secret_stands_on_a_command_line(env: dict[str, str], services: Services) -> None:
    for name, service in services.items():
        parts = ("command", "entrypoint", "healthcheck", "labels")
        text = yaml.safe_dump([service.get(part) for part in parts])
        assert not [variable for variable in env if env[variable] in text], name


# --- The scripts that the services start with


def test_programs_that_services_are_given_exist(services: Services) -> None:
    root = composition.COMPOSE_FILE.parent
    for service in services.values():
        text = yaml.safe_dump(service)
        for path in re.findall(r"/opt/ferry/([a-z_./-]+)", text):
            # The UI's plugins are optional.
            assert (root / path).exists() or path == "plugins", path


def test_shell_scripts_are_well_formed() -> None:
    for script in (composition.COMPOSE_FILE.parent / "docker").glob("*.sh"):
        shell = "bash" if script.read_text().startswith("#!/bin/bash") else "sh"
        subprocess.run([shell, "-n", script], check=True, timeout=10)
        assert script.stat().st_mode & 0o111, script


def test_only_airflows_health_page_is_asked_for_a_part(services: Services) -> None:
    """The scheduler's own health server answers with an empty body."""
    asked = [each["healthcheck"]["test"] for each in services.values() if "healthcheck" in each]
    ours = [test for test in asked if any(str(word).endswith("healthcheck.py") for word in test)]
    assert len(ours) == 5
    for _, _, _, url, *part in ours:
        assert bool(part) == url.endswith("/api/v2/monitor/health"), url
