"""What Ferry's DAGs share: endpoints from Airflow's connections, Spark steps, error rules."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Asset, BaseHook
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from pipelines.capacity import driver_memory, heavy_tasks
from pipelines.config import PROJECT_ROOT, PipelineConfig, load_pipeline_config
from pipelines.connections import connection_environment
from pipelines.errors import PROGRAMMING_ERRORS, FerryError
from pipelines.models_config import Unit
from pipelines.spark import driver_java_options

PLAN_TASK = "plan"
INGEST_TASK = "ingest"
_NOTHING_TO_DO = "nothing_to_do"
_SPARK_APP = PROJECT_ROOT / "pipelines" / "spark_app.py"


def task_environment() -> dict[str, str]:
    """Return Ferry's endpoints and secrets, from the connections that an operator maintains.

    Raises:
        AirflowNotFoundException: a connection is missing; it is named.
        ConfigError: a connection lacks a field.
    """
    return connection_environment(BaseHook.get_connection)


def configuration() -> PipelineConfig:
    """Return `pipeline.yaml`, also when a DAG is parsed.

    Raises:
        ConfigError: the file is wrong; the UI shows it as the DAG's import error.
    """
    path = os.environ.get("FERRY_CONFIG", PROJECT_ROOT / "pipeline.yaml")
    return load_pipeline_config(Path(path))


@contextmanager
def ferry_errors() -> Iterator[None]:
    """Fail a task at once, without retries, for an error that can't pass by itself."""
    try:
        yield
    except PROGRAMMING_ERRORS as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
    except FerryError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error


@contextmanager
def ferry_task() -> Iterator[Any]:
    """Give a task the settings that the connections name, under the rules for errors."""
    from pipelines.config import load_settings

    with ferry_errors():
        # The process is this task's own, and boto3 looks for credentials in the environment.
        os.environ.update(task_environment())
        yield load_settings()


class FerrySparkOperator(SparkSubmitOperator):
    """Runs one Spark step through Airflow's connection ``spark_default``.

    A failure that can't pass fails the task at once; the step's own one-line explanation becomes
    the task's error.
    """

    def __init__(self, *, step: str, unit: Unit | None = None, **kwargs: Any) -> None:
        plan = "{{ ti.xcom_pull(task_ids='" + PLAN_TASK + "') | tojson }}"
        super().__init__(
            application=str(_SPARK_APP),
            application_args=[step, plan, *([unit] if unit else [])],
            conf={"spark.driver.extraJavaOptions": driver_java_options()},
            conn_id="spark_default",
            driver_memory=driver_memory(configuration().operations.heavy_tasks),
            name=f"ferry-{step}-{unit}" if unit else f"ferry-{step}",
            **kwargs,
        )
        self.step = step
        self.unit = unit

    def execute(self, context: Any) -> None:
        """Submit the step and wait for it."""
        # A missing connection would silently mean yarn.
        BaseHook.get_connection("spark_default")
        plan = context["ti"].xcom_pull(task_ids=PLAN_TASK)
        skip_unless_planned(plan, self.unit)
        if reason := nothing_to_do(context):
            raise AirflowSkipException(reason)
        if self.step != "ingest":
            skip_if_unchanged(plan, self.unit)
        if self.step == "stage" and self.unit and _staged_here(plan, self.unit):
            return
        if self.step == "features" and _computed_already(plan):
            return
        with ferry_errors(), tempfile.TemporaryDirectory(prefix="ferry-step-") as folder:
            error_file = Path(folder) / "error"
            self.env_vars = {
                **task_environment(),
                "FERRY_ERROR_FILE": str(error_file),
                "PYSPARK_PYTHON": sys.executable,
                "PYSPARK_DRIVER_PYTHON": sys.executable,
            }
            if self.step == "build" and self.unit:
                from pipelines.models.registry import spark_jars

                self.jars = ",".join(spark_jars(self.unit)) or None
            try:
                super().execute(context)
            except AirflowException as error:
                self._explain(error, error_file, context)
                raise

    def _explain(self, error: AirflowException, error_file: Path, context: Any) -> None:
        from pipelines.spark_app import EXIT_HOPELESS, EXIT_LEFT_OUT

        if not error_file.exists():
            return
        # Not from the error itself: that quotes the whole command, a person's note among it.
        code, _, message = error_file.read_text(encoding="utf-8").partition(" ")
        if int(code) == EXIT_LEFT_OUT:
            context["ti"].xcom_push(_NOTHING_TO_DO, message)
            raise AirflowSkipException(message) from error
        if int(code) == EXIT_HOPELESS:
            raise AirflowFailException(message) from error
        raise AirflowException(message) from error


def skip_unless_planned(plan: dict[str, Any], unit: Unit | None) -> None:
    """Skip a unit's task in a run that does not build the unit."""
    if unit is not None and unit not in plan["units"]:
        raise AirflowSkipException(f"{unit} is none of this run's units")


def skip_if_unchanged(plan: dict[str, Any], unit: Unit | None) -> None:
    """Skip a unit's task, or one of the whole run, that has nothing new to work on."""
    with ferry_task() as settings:
        from pipelines.run import RunPlan
        from pipelines.steps import unchanged

        reason = unchanged.reason_to_skip(settings, RunPlan.model_validate(plan), unit)
    if reason:
        raise AirflowSkipException(reason)


def nothing_to_do(context: Any) -> str | None:
    """Return why the run has nothing to build, as its ingest said, or None."""
    reason: str | None = context["ti"].xcom_pull(task_ids=INGEST_TASK, key=_NOTHING_TO_DO)
    return reason


def _staged_here(plan: dict[str, Any], unit: Unit) -> bool:
    """Stage a small version without Spark; skip the staging of one that will not go live."""
    with ferry_task() as settings:
        from pipelines.run import RunPlan
        from pipelines.steps import units

        run_plan = RunPlan.model_validate(plan)
        reason = units.release_refusal(settings, run_plan, unit)
        if reason is None:
            return units.stage_small(settings, run_plan, unit)
    raise AirflowSkipException(reason)


def _computed_already(plan: dict[str, Any]) -> bool:
    """Take the features that the ingest of a small lake has computed in its own process."""
    with ferry_task() as settings:
        from pipelines.run import RunPlan
        from pipelines.steps import data

        return data.take_features(settings, RunPlan.model_validate(plan))


def release_asset(unit: Unit) -> Asset:
    """Return the asset that is updated when a version of `unit` goes live.

    The event's extra: version, run_date, and metrics by name.
    """
    return Asset(name=f"ferry_{unit}", uri=f"ferry://releases/{unit}")


def heavy_slots() -> int:
    """Return the slots that a task that trains takes of Airflow's default pool.

    So many of them fit in at the same time as `pipeline.yaml` says, over all runs and without a
    pool that somebody has to create. A quarter of the pool is left to short tasks: a rollback
    must not wait for a training.
    """
    size: int = conf.getint("core", "default_pool_task_slot_count")
    return max(1, size * 3 // 4 // heavy_tasks(configuration().operations.heavy_tasks))


def run_url(dag_id: str, run_id: str) -> str:
    """Return the address of a run in Airflow's UI."""
    base = str(conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip("/")
    return f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}"
