"""The rules that `docker-compose.yaml` keeps. No engine is needed, and none is started."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.docker import composition
from tests.docker.composition import Services

#: Run once and end; compose waits for their success.
ONE_SHOT = {"storage-init", "bucket-init", "airflow-init"}
#: Started by hand.
ON_DEMAND = {"cli"}
_TAGGED = re.compile(r"^[a-z0-9./-]+:v?\d+(\.\d+)+(-[a-z0-9.-]+)?$")


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
    assert reach_postgres == {"postgres", "airflow-init", *composition.AIRFLOW_PARTS}


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


# --- The environment: the same variables as in the embedded mode, and why others


def test_each_secret_goes_only_where_it_is_needed(env: dict[str, str], services: Services) -> None:
    def holders(variable: str) -> set[str]:
        return {
            name
            for name, service in services.items()
            if any(env[variable] in str(v) for v in (service.get("environment") or {}).values())
        }

    airflow = {"airflow-init", *composition.AIRFLOW_PARTS}
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
