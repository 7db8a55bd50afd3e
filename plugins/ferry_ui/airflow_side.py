"""The pages in the API server: its users, its connections."""

from __future__ import annotations

from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.connection import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from fastapi import FastAPI

from ferry_ui.app import REPORTED_DAG, make_app
from ferry_ui.services import Services
from pipelines.config import Settings, settings_with
from pipelines.connections import connection_environment
from pipelines.errors import ConfigError


def make_pages() -> FastAPI:
    """Return the pages for those who may read the DAG whose releases they show."""
    return make_app(
        Services(_settings), requires_access_dag(method="GET", param_dag_id=REPORTED_DAG)
    )


def _settings() -> Settings:
    """Return the endpoints that tasks use, and leave this process's environment as it is.

    Raises:
        ConfigError: a connection is missing, or lacks a field.
    """
    try:
        # What tasks use asks the API server; this is the API server.
        variables = connection_environment(Connection.get_connection_from_secrets)
    except AirflowNotFoundException as error:
        raise ConfigError(f"{error}: add it under Admin, Connections") from error
    return settings_with(variables)
