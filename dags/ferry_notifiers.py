"""Who is told when something needs a person: the notifiers that `pipeline.yaml` names."""

from __future__ import annotations

import html
import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.bases.notifier import BaseNotifier
from airflow.sdk.definitions.template import literal
from ferry_tasks import configuration, ferry_task, run_url

from pipelines.errors import ConfigError, ServiceError

if TYPE_CHECKING:
    from pipelines.config import NotifierConfig

log = logging.getLogger(__name__)

_WEBHOOK_SECONDS = 10.0
_LONGEST = 3000


class WebhookNotifier(BaseNotifier):
    """Posts ``{"text": …}`` as JSON, which chat programs take, to an Airflow connection.

    The connection's host is the URL; its password, if any, is appended as the last part of the
    path, so that a secret address is no part of `pipeline.yaml`.
    """

    def __init__(self, text: str, conn_id: str = "ferry_webhook") -> None:
        super().__init__()
        self.text = text
        self.conn_id = conn_id

    def notify(self, context: Any) -> None:
        """Send it.

        Raises:
            ConfigError: the connection has no host.
            ServiceError: the other side does not answer, or refuses.
        """
        import httpx

        connection = BaseHook.get_connection(self.conn_id)
        if not connection.host:
            raise ConfigError(
                f"Airflow's connection {self.conn_id} has no host: write its URL there"
            )
        url = connection.host
        if "://" not in url:
            port = f":{connection.port}" if connection.port else ""
            url = f"{connection.schema or 'https'}://{url}{port}"
        if connection.password:
            url = f"{url.rstrip('/')}/{connection.password}"
        try:
            answer = httpx.post(url, json={"text": self.text}, timeout=_WEBHOOK_SECONDS)
        except httpx.TransportError as error:
            raise ServiceError(
                f"the webhook of connection {self.conn_id} does not answer: {type(error).__name__}"
            ) from error
        if answer.is_error:
            raise ServiceError(
                f"the webhook of connection {self.conn_id} answers {answer.status_code}"
            )


class FerryNotifier(BaseNotifier):
    """Tells everyone whom `pipeline.yaml` names what happened, what is live, and where to look.

    As a callback of a task, of a DAG (for what ends a run from outside) or of a deadline.
    """

    def __init__(self, what: str = "") -> None:
        super().__init__()
        self.what = what

    def notify(self, context: Any) -> None:
        """Send it, but for the deadline of a backfill's run, or of one that has ended."""
        if "deadline" in context:
            # What the scheduler sends along is no object, but its JSON.
            run = context["dag_run"]
            if run["run_type"] != "backfill" and run["state"] not in ("success", "failed"):
                tell(f"{run['dag_id']} is late", self.what, run["dag_id"], run["dag_run_id"])
            return
        task = context["ti"]
        error = context.get("exception") or context.get("reason") or "it failed"
        tell(f"{task.dag_id}: {task.task_id} failed", str(error), task.dag_id, task.run_id)


class EndedRunNotifier(BaseNotifier):
    """A DAG's failure callback for the runs that none of their own tasks can speak for."""

    def notify(self, context: Any) -> None:
        """Send it if the run was ended from outside, for its length say."""
        reason = context.get("reason")
        if reason != "task_failure":
            dag_id, run_id = context["dag"].dag_id, context["run_id"]
            tell(f"{dag_id} was ended", str(reason), dag_id, run_id)


def tell(subject: str, message: str, dag_id: str, run_id: str) -> None:
    """Send a notice with what is live now and the link to the run.

    Never raises: what can't be read, and a notifier that fails, are told in the log and in the
    notice itself. A notice must neither get lost nor change how the task ends that sends it.
    """
    try:
        with ferry_task() as settings:
            from pipelines.operations import live_now

            live = live_now(settings)
    except Exception as error:  # noqa: BLE001
        live = f"what is live can't be read: {error}"
    text = f"{message[:_LONGEST]}\n{live}\n{run_url(dag_id, run_id)}"
    log.warning("notice: %s\n%s", subject, text)
    for chosen in configuration().operations.notify:
        try:
            _make(chosen, subject, text)({})
        except Exception as error:  # noqa: BLE001
            log.error("%s could not tell: %s: %s", chosen.notifier, type(error).__name__, error)


def _make(chosen: NotifierConfig, subject: str, text: str) -> BaseNotifier:
    from airflow.sdk._shared.module_loading import import_string

    kind = import_string(chosen.notifier)

    def fill(value: Any, *, is_template: bool) -> Any:
        match value:
            case str():
                filled = value.replace("{subject}", subject).replace("{message}", text)
                filled = filled.replace("{html}", html.escape(text))
                # What people or data wrote must not be run as a template.
                return literal(filled) if is_template and filled != value else filled
            case list():
                return [fill(entry, is_template=is_template) for entry in value]
            case dict():
                return {k: fill(entry, is_template=is_template) for k, entry in value.items()}
            case _:
                return value

    arguments = {
        name: fill(value, is_template=name in kind.template_fields)
        for name, value in chosen.arguments.items()
    }
    notifier: BaseNotifier = kind(**arguments)
    return notifier
