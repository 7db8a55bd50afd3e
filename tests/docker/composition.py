"""`docker-compose.yaml` as an engine would see it: merged and with its variables filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.services import REPOSITORY

#: Each service's settings, by its name.
Services = dict[str, dict[str, Any]]
COMPOSE_FILE = REPOSITORY / "docker-compose.yaml"
_VARIABLE = re.compile(r"\$\$|\$\{([A-Z0-9_]+)(?::([-?])([^}]*))?\}")

#: The services that are parts of Airflow.
AIRFLOW_PARTS = ("airflow-api", "airflow-scheduler", "airflow-dag-processor")


def required_variables() -> set[str]:
    """Return the variables without which the file is refused."""
    return {m[1] for m in _VARIABLE.finditer(_text()) if m[2] == "?"}


def optional_variables() -> dict[str, str]:
    """Return the variables that have a default, with it."""
    return {m[1]: m[3] for m in _VARIABLE.finditer(_text()) if m[2] == "-"}


def bare_variables() -> set[str]:
    """Return the variables that would silently become empty."""
    return {m[1] for m in _VARIABLE.finditer(_text()) if m[1] and not m[2]}


def load(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the file's content with the variables filled in.

    Raises:
        KeyError: a variable that the file requires is missing.
    """

    def value(match: re.Match[str]) -> str:
        name, kind, default = match[1], match[2], match[3]
        if not name:
            return "$"
        return variables.get(name, default) if kind == "-" else variables[name]

    content: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, _text()))
    return content


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of an `.env` file."""
    lines = (line for line in path.read_text().splitlines() if not line.startswith("#"))
    return dict(line.split("=", maxsplit=1) for line in lines if line)


def _text() -> str:
    # A comment is no place for a variable.
    lines = COMPOSE_FILE.read_text().splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))
