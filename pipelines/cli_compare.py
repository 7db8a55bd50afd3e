"""``ferry compare``: every configured model on one run date's data."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_output import JsonFlag, aligned, print_json, say
from pipelines.comparison import Comparison, compare, find_run
from pipelines.config import Settings, load_pipeline_config, load_settings
from pipelines.errors import ConfigError
from pipelines.lake import RunPaths
from pipelines.models_config import UNITS, Unit
from pipelines.release.rules import known_unit


def compare_command(
    run_date: Annotated[str, typer.Option(help="The run sees events before the end of this day.")],
    unit: Annotated[
        list[str] | None,
        typer.Option(help="Only this unit's models; may be given again."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The page to write (default: comparison-DATE.html).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train and measure every configured model, and say which one to serve.

    Uses the features of the newest run of that date, or computes them from the lake. Publishes
    nothing.
    """
    day = _parse(run_date)
    settings = load_settings()
    units = tuple(known_unit(name) for name in unit) if unit else UNITS
    comparison = _compare(settings, day, units)
    if as_json:
        print_json(comparison.model_dump(mode="json"))
    else:
        _show(comparison)
    page = output or Path(f"comparison-{day}.html")
    from pipelines.report.comparison import render

    page.write_text(render(comparison), encoding="utf-8")
    typer.echo(f"{page}: tables and plots", err=as_json)


def _parse(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--run-date {text!r} is not a date: write it as YYYY-MM-DD") from error


def _compare(settings: Settings, day: date, units: tuple[Unit, ...]) -> Comparison:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pipelines.capacity import driver_memory
    from pipelines.models.registry import spark_jars
    from pipelines.spark import driver_java_options, size_shuffles, spark_session

    config = load_pipeline_config(settings.config)
    jars = sorted({jar for unit in units for jar in spark_jars(unit)})
    conf = {
        "spark.driver.memory": driver_memory(config.operations.heavy_tasks),
        "spark.driver.extraJavaOptions": driver_java_options(),
    }
    if jars:
        conf["spark.jars"] = ",".join(jars)
    with spark_session("ferry compare", settings.spark_master, **conf) as spark:
        paths = find_run(settings.lake, day)
        if paths is None:
            from pipelines.features.samples import build_features

            paths = RunPaths(f"{settings.lake.comparisons}/{day}")
            say(f"no run of {day} is in the lake: computing its features")
            size_shuffles(spark, settings.lake.ratings)
            build_features(spark, config, settings.lake, paths, day)
        size_shuffles(spark, paths.events, paths.samples)
        return compare(spark, config, paths, day, units, say)


def _show(comparison: Comparison) -> None:
    for choice in comparison.choices:
        results = comparison.of_kind(choice.kind)
        names = list(dict.fromkeys(name for r in results for name in r.metrics))
        rows = [[choice.kind, *names, "unit", "seconds"]]
        for result in results:
            cells = [
                f"{result.metrics[name].value:.4f}" if name in result.metrics else ""
                for name in names
            ]
            rows.append([result.model, *cells, result.unit, f"{result.seconds:.0f}"])
        for line in aligned(rows):
            say(line)
        for result in results:
            if result.error:
                say(f"{result.model}: {result.error}", "red")
        say(f"serve {choice.model or 'none of them'}: {choice.why}", "bold")
        say("")
