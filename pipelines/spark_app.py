"""The program that spark-submit starts for every Spark step:

    spark_app.py STEP PLAN_JSON [UNIT]

with STEP one of ingest, features, build, stage. Endpoints and secrets come from the environment.
Exit code 65 says that trying again can't help (bad data or configuration, a disagreement), 75 that
the step is left out by rule, 1 that trying again may help. With FERRY_ERROR_FILE set, the code and
the one line that explains it are also left there.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import cast, get_args

from pipelines.config import Settings, load_settings
from pipelines.errors import (
    PROGRAMMING_ERRORS,
    ConfigError,
    FerryError,
    NothingToDoError,
    find_in_text,
)
from pipelines.logs import configure_logging
from pipelines.models import registry
from pipelines.models_config import Unit
from pipelines.release.runners import SparkRunner
from pipelines.run import RunPlan
from pipelines.spark import spark_session
from pipelines.steps.data import features_at_once, features_step, ingest_step
from pipelines.steps.units import build_step, stage_step

EXIT_FAILED = 1
EXIT_HOPELESS = 65
EXIT_LEFT_OUT = 75

log = logging.getLogger(__name__)


def run_step(settings: Settings, step: str, plan: RunPlan, unit: Unit | None) -> None:
    """Run one step in a Spark session of its own.

    Raises:
        ConfigError: there is no such step, or it needs a unit.
    """
    name = f"ferry {step} {unit or ''} {plan.version}"
    if step == "build" and unit:
        registry.load(unit)
    with spark_session(name) as spark:
        match step, unit:
            case "ingest", None:
                ingest_step(spark, settings, plan)
                features_at_once(spark, settings, plan)
            case "features", None:
                features_step(spark, settings, plan)
            case "build", str():
                build_step(spark, settings, plan, unit)
            case "stage", str():
                stage_step(SparkRunner(spark), settings, plan, unit)
            case _:
                raise ConfigError(f"no Spark step {step!r} with unit {unit!r}")


def main(arguments: list[str]) -> int:
    """Run the step that the arguments name; returns the exit code."""
    configure_logging()
    try:
        step, plan, *rest = arguments
        unit = rest[0] if rest else None
        if unit is not None and unit not in get_args(Unit):
            raise ConfigError(f"no unit {unit!r}: units are {', '.join(get_args(Unit))}")
        run_step(load_settings(), step, RunPlan.model_validate_json(plan), cast(Unit | None, unit))
    except FerryError as error:
        return _failed(error)
    except PROGRAMMING_ERRORS as error:
        log.exception("this is a defect of the program")
        return _failed(error)
    except Exception as error:
        if ours := find_in_text(str(error)):
            return _failed(ours)
        raise
    return 0


def _failed(error: Exception) -> int:
    """Say why in one line, in the log and to whoever submitted the step."""
    is_left_out = isinstance(error, NothingToDoError)
    line = str(error) if is_left_out else f"{type(error).__name__}: {error}"
    log.log(logging.WARNING if is_left_out else logging.ERROR, line)
    is_retryable = isinstance(error, FerryError) and error.retryable
    code = EXIT_LEFT_OUT if is_left_out else EXIT_FAILED if is_retryable else EXIT_HOPELESS
    if error_file := os.environ.get("FERRY_ERROR_FILE"):
        Path(error_file).write_text(f"{code} {line}", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
