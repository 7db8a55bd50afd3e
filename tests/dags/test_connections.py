"""What tasks make of Airflow's connections and of notices, with Airflow and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import PROJECT_ROOT

_CONNECTIONS: dict[str, dict[str, Any]] = {
    "spark_default": {"conn_type": "spark", "host": "local[2]"},
    "ferry_redis": {"conn_type": "redis", "host": "redis", "port": 6379, "password": "p"},
    "ferry_s3": {"conn_type": "aws", "login": "id", "password": "key", "extra": {"bucket": "b"}},
    "ferry_tf_serving": {"conn_type": "generic", "extra": {"replicas": "a:1:2", "model_dir": "/m"}},
}
_ENVIRONMENT = "import json, ferry_tasks; print(json.dumps(ferry_tasks.task_environment()))"
# Looks for its connection before anything else.
_OPERATOR = "import ferry_tasks as f; f.FerrySparkOperator(task_id='t', step='ingest').execute({})"


def run(home: Path, code: str, connections: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """Return what the code prints, and the last line of its errors."""
    others = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "FERRY", "AWS"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **others,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "PYTHONPATH": f"{PROJECT_ROOT}:{PROJECT_ROOT / 'dags'}",
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(c) for name, c in connections.items()},
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout, (done.stderr.strip().splitlines() or [""])[-1]


def test_connections_become_the_environment_of_a_task(tmp_path: Path) -> None:
    output, _ = run(tmp_path, _ENVIRONMENT, _CONNECTIONS)
    assert json.loads(output) == {
        "FERRY_REDIS_URL": "redis://:p@redis:6379",
        "FERRY_BUCKET": "b",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_DEFAULT_REGION": "us-east-1",
        "FERRY_TF_SERVING": "a:1:2",
        "FERRY_MODEL_DIR": "/m",
    }


@pytest.mark.parametrize("missing", _CONNECTIONS)
def test_a_missing_connection_is_named(missing: str, tmp_path: Path) -> None:
    left = {name: c for name, c in _CONNECTIONS.items() if name != missing}
    # Without its connection, Airflow's operator would ask a YARN for its cluster.
    output, error = run(tmp_path, _OPERATOR if missing == "spark_default" else _ENVIRONMENT, left)
    assert output == ""
    assert missing in error
    assert "isn't defined" in error


def test_a_field_that_a_connection_lacks_is_named(tmp_path: Path) -> None:
    bare = {**_CONNECTIONS, "ferry_s3": {"conn_type": "aws"}}
    _, error = run(tmp_path, _ENVIRONMENT, bare)
    assert "ferry_s3 and ferry_tf_serving do not give FERRY_BUCKET" in error


_NOTICE = """
import ferry_notifiers
from pipelines.config import NotifierConfig
smtp = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
arguments = {"to": "a@example.com", "subject": "{subject}", "html_content": "<pre>{html}</pre>"}
chosen = NotifierConfig(notifier=smtp, arguments=arguments)
notifier = ferry_notifiers._make(chosen, "late {{ 1 + 1 }}", "a <b>note</b> {{ 1 + 1 }}")
notifier.render_template_fields({})
print(notifier.subject)
print(notifier.html_content)
"""


def test_a_notice_is_neither_run_as_a_template_nor_as_html(tmp_path: Path) -> None:
    output, error = run(tmp_path, _NOTICE, {})
    assert output.splitlines() == [
        "late {{ 1 + 1 }}",
        "<pre>a &lt;b&gt;note&lt;/b&gt; {{ 1 + 1 }}</pre>",
    ], error


def test_a_notice_is_sent_also_where_nothing_else_can_be_reached(tmp_path: Path) -> None:
    level = "import os; os.environ['AIRFLOW__LOGGING__LOGGING_LEVEL'] = 'WARNING'"
    code = "import ferry_notifiers as f; f.tell('it failed', 'why', 'some_dag', 'some run')"
    output, error = run(tmp_path, f"{level}; {code}", {})
    # Without a notifier it stands in the log alone; its last line is the link.
    assert "ferry_redis" in output + error
    assert "/dags/some_dag/runs/some%20run" in output + error
