"""The environment of the `ferry` commands and of Airflow, as the embedded services need it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Literal

from local.credentials import Secrets
from local.home import BUCKET, HOST, REGION, Home, write_private
from pipelines.capacity import heavy_tasks
from pipelines.config import PROJECT_ROOT, load_pipeline_config

Schedule = Literal["daily", "none"]


def ferry_environment(home: Home, secrets: Secrets) -> dict[str, str]:
    """Return the variables by which the library reaches the embedded services."""
    redis = home.port("redis").number
    grpc, rest = home.port("tf_grpc").number, home.port("tf_rest").number
    environment = {
        "FERRY_LAKE": str(home.lake),
        "FERRY_REDIS_URL": f"redis://:{secrets.redis_password}@{HOST}:{redis}/0",
        "FERRY_S3_ENDPOINT_URL": f"http://{home.address('s3')}",
        "FERRY_BUCKET": BUCKET,
        "FERRY_TF_SERVING": f"{HOST}:{grpc}:{rest}",
        "FERRY_MODEL_DIR": str(home.models),
        "FERRY_SPARK_MASTER": home.spark_master,
        "AWS_ACCESS_KEY_ID": secrets.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": secrets.s3_secret_key,
        "AWS_DEFAULT_REGION": REGION,
        # Spark would otherwise listen on the address of the machine's name.
        "SPARK_LOCAL_IP": HOST,
    }
    # Java as set-up found it; without the file, whatever JAVA_HOME or PATH name.
    java_home = Path(sys.prefix) / "java-home"
    if java_home.exists():
        environment["JAVA_HOME"] = java_home.read_text().strip()
    return environment


def write_environment_file(home: Home, secrets: Secrets) -> None:
    """Leave the variables where the `ferry` commands look for them."""
    lines = ["# Written by 'make up' and 'make run'; holds secrets."]
    for name, value in ferry_environment(home, secrets).items():
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"{name}='{quoted}'")
    write_private(home.environment_file, "\n".join(lines) + "\n")


def process_environment() -> dict[str, str]:
    """Return what every process of ours inherits, on top of the user's own environment."""
    bin_folder = str(Path(sys.prefix) / "bin")
    no_proxy = ",".join(filter(None, (os.environ.get("NO_PROXY"), HOST, "localhost")))
    return {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(PROJECT_ROOT),
        "PYTHONUNBUFFERED": "1",
        # A proxy of the user's is not the way to the loopback interface.
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }


def airflow_environment(home: Home, secrets: Secrets, schedule: Schedule) -> dict[str, str]:
    """Return the variables of all parts of Airflow; writes the login's password file.

    Raises:
        ConfigError: `pipeline.yaml` is wrong.
    """
    passwords = home.airflow / "passwords.json"
    write_private(passwords, json.dumps({"admin": secrets.airflow_password}) + "\n")
    base_url = f"http://{home.address('airflow')}"
    operations = load_pipeline_config(home.config).operations
    settings = {
        "CORE__DAGS_FOLDER": str(home.dags_folder.absolute()),
        "CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        # Where the cores are taken, one part of Airflow writes for longer than the 5 s that others
        # wait by default; what they were about to do would fail with "database is locked". One that
        # is stopped for a minute may keep it locked so long.
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home.airflow.absolute()}/airflow.db?timeout=90",
        "CORE__EXECUTOR": "LocalExecutor",
        # More than may train at a time (operations.heavy_tasks): a rollback finds a free one.
        "CORE__PARALLELISM": str(heavy_tasks(operations.heavy_tasks) + 2),
        "CORE__FERNET_KEY": secrets.airflow_fernet_key,
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        # Without these two, tasks look for the API server at the default port and fail.
        "CORE__EXECUTION_API_SERVER_URL": f"{base_url}/execution/",
        "API__BASE_URL": base_url,
        "API__HOST": HOST,
        "API__PORT": str(home.port("airflow").number),
        "API__SECRET_KEY": secrets.airflow_api_key,
        "API_AUTH__JWT_SECRET": secrets.airflow_jwt_key,
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        # A DAG file takes three seconds to read, in each task as well, and by default at most 30 or
        # 50: on a crowded machine tasks would fail for it.
        "CORE__DAGBAG_IMPORT_TIMEOUT": "600",
        "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "600",
        "DAG_PROCESSOR__STALE_DAG_THRESHOLD": "600",
        # The scheduler's loop; tasks of a run start within about a second of each other.
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        # A scheduler that stood still for so long takes itself for dead, and kills every running
        # task. By default that is 30 s: a closed lid, a snapshot. The look at whose scheduler is
        # dead is every 300 s, so what a killed one left is found no later than before.
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "240",
        "DAG_PROCESSOR__HEALTH_CHECK_THRESHOLD": "240",
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "240",
        # A task asks again when it has waited so long for the API server, and fails after five
        # times; by default after 5 s, so that a minute's stall fails it. Longer than the database
        # may be locked.
        "WORKERS__EXECUTION_API_TIMEOUT": "120",
        # Off: no run but those that are asked for.
        "SCHEDULER__USE_JOB_SCHEDULE": str(schedule == "daily"),
        "LOGGING__COLORED_CONSOLE_LOG": "False",
        "LOGGING__UVICORN_LOGGING_LEVEL": "WARNING",
    }
    return {
        **ferry_environment(home, secrets),
        **{f"AIRFLOW__{name}": value for name, value in settings.items()},
        **_connections(home, secrets),
        "AIRFLOW_HOME": str(home.airflow),
        "FERRY_HOME": str(home.root),
        "FERRY_CONFIG": str(home.config.absolute()),
    }


def _connections(home: Home, secrets: Secrets) -> dict[str, str]:
    ferry = ferry_environment(home, secrets)
    connections: dict[str, dict[str, object]] = {
        "spark_default": {
            "conn_type": "spark",
            "host": home.spark_master,
            "extra": {"deploy-mode": "client"},
        },
        "ferry_redis": {
            "conn_type": "redis",
            "host": HOST,
            "port": home.port("redis").number,
            "password": secrets.redis_password,
            "schema": "0",
        },
        "ferry_s3": {
            "conn_type": "aws",
            "login": secrets.s3_access_key,
            "password": secrets.s3_secret_key,
            "extra": {
                "endpoint_url": ferry["FERRY_S3_ENDPOINT_URL"],
                "bucket": BUCKET,
                "region_name": REGION,
            },
        },
        "ferry_tf_serving": {
            "conn_type": "generic",
            "extra": {
                "replicas": ferry["FERRY_TF_SERVING"],
                "model_dir": ferry["FERRY_MODEL_DIR"],
            },
        },
    }
    return {
        f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()
    }
