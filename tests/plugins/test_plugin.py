"""The plugin as Airflow loads it, in processes of its own: light, alone, and with its settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipelines.config import PROJECT_ROOT

_LOAD = """
import json, sys, time
import airflow.plugins_manager as manager
from airflow import settings
before = set(sys.modules)
began = time.perf_counter()
apps, _ = manager.get_fastapi_plugins()
seconds = time.perf_counter() - began
views = [view for plugin in manager._get_plugins()[0] for view in plugin.external_views]
print(json.dumps({
    "apps": [app["url_prefix"] for app in apps],
    "views": {view["name"]: view["destination"] for view in views},
    "errors": manager._get_plugins()[1],
    "seconds": seconds,
    "timetables": list(manager.get_timetables_plugins()),
    "imported": sorted({name.partition(".")[0] for name in set(sys.modules) - before}),
    "library": sorted(name for name in sys.modules if name.startswith("pipelines.")),
}))
"""
_SETTINGS = """
import json, os
from airflow import settings
from ferry_ui.airflow_side import _settings
from pipelines.errors import ConfigError
try:
    found = _settings()
    secrets = [found.redis_url, found.s3_key]
    said = [found.bucket, *(secret.get_secret_value() for secret in secrets)]
except ConfigError as error:
    said = [str(error)]
print(json.dumps([said, os.environ.get("AWS_SECRET_ACCESS_KEY")]))
"""
_CONNECTIONS = {
    "AIRFLOW_CONN_FERRY_REDIS": "redis://:secret@cache:6390/0",
    "AIRFLOW_CONN_FERRY_S3": json.dumps(
        {"conn_type": "aws", "login": "key", "password": "hush", "extra": {"bucket": "b"}}
    ),
    "AIRFLOW_CONN_FERRY_TF_SERVING": json.dumps(
        {"conn_type": "generic", "extra": {"replicas": "tf:8500:8501", "model_dir": "/models"}}
    ),
}


def run(script: str, home: Path, **environment: str) -> Any:
    """Return the JSON that a process with Airflow's environment prints last."""
    keep = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "FERRY", "AWS"))
    }
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **keep,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
            "PYTHONPATH": str(PROJECT_ROOT),
            "FERRY_LAKE": str(home / "lake"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_loading_the_plugin_imports_next_to_nothing(tmp_path: Path) -> None:
    loaded = run(_LOAD, tmp_path)
    assert loaded["errors"] == {}
    assert loaded["apps"] == ["/ferry"]
    assert loaded["views"] == {"Releases": "nav", "Try it": "nav", "Report": "dag_run"}
    heavy = {"boto3", "fastapi", "ferry_ui", "grpc", "numpy", "pandas", "pyspark", "yaml"}
    assert not heavy & set(loaded["imported"]), loaded["imported"]
    assert "ferry_plugin" in loaded["imported"]
    assert loaded["timetables"] == ["pipelines.airflow.timetable.DataDayTimetable"]
    rules = ["airflow", "airflow.run_days", "airflow.timetable", "day_calendar", "schedule"]
    assert loaded["library"] == [f"pipelines.{module}" for module in rules]


def test_the_settings_are_those_of_the_connections(tmp_path: Path) -> None:
    said, environment = run(_SETTINGS, tmp_path, **_CONNECTIONS, AWS_SECRET_ACCESS_KEY="mine")
    assert said == ["b", "redis://:secret@cache:6390/0", "hush"]
    # What the API server itself reads with, its logs say, stays as it was.
    assert environment == "mine"


def test_a_missing_connection_is_named(tmp_path: Path) -> None:
    some = {name: value for name, value in _CONNECTIONS.items() if "S3" not in name}
    ((said,), _) = run(_SETTINGS, tmp_path, **some)
    assert "ferry_s3" in said
    assert "Admin, Connections" in said
