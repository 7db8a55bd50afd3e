"""How much memory the steps of a run take over many synthetic events.

Data are made, and then the steps run one after the other as tasks of the daily DAG start them:
Spark's by spark-submit with the same options, Keras's in a process of its own. The figure is the
peak of a step's whole tree of processes (Python, Java, and Spark's Python workers), by what each
has for itself and its share of what several have (PSS), looked at twice a second.

Passes over the same data are cut to one or a few, to save time: what one of them holds, the next
one holds again.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import psutil
import typer
import yaml

from benchmarks.setting import home_environment, machine, save
from local.environment import ferry_environment, process_environment
from local.home import Home, load_home
from local.stack import Stack
from pipelines.capacity import driver_memory
from pipelines.config import PROJECT_ROOT, load_settings
from pipelines.data.contract import DataSummary
from pipelines.data.synthetic import generate
from pipelines.lake import Lake, RunPaths
from pipelines.models.registry import needs_spark, spark_jars
from pipelines.models_config import Unit
from pipelines.release.rules import known_unit
from pipelines.run import RunPlan
from pipelines.spark import driver_java_options
from pipelines.steps.plan import plan_run
from pipelines.steps.units import build_step

_RUN_DATE = date(2026, 6, 30)
_LIMIT_GB = 6
_DAYS = 60
_SEED = 42
_SECONDS_BETWEEN_LOOKS = 0.5


class Step(NamedTuple):
    """One step, with what differs from :data:`_FEW_PASSES` in ``models`` of the configuration."""

    name: str
    step: str
    unit: Unit | None = None
    models: Mapping[str, dict[str, Any]] = MappingProxyType({})


class Peak(NamedTuple):
    """What a step took."""

    step: str
    seconds: float
    peak_bytes: int


_FEW_PASSES: dict[str, dict[str, Any]] = {
    "recs": {"als": {"iterations": 2}},
    "embeddings": {"item2vec": {"iterations": 1}, "graph": {"iterations": 1}},
    "ctr_pmml": {
        "gradient_boosted_trees": {"trees": 3},
        "logistic_regression": {"iterations": 5},
    },
    "interest_ranker": {"epochs": 1},
    "embedding_mlp": {"epochs": 1},
}
STEPS = (
    Step("ingest", "ingest"),
    Step("features", "features"),
    Step("recs", "build", "recs"),
    Step("item2vec", "build", "embeddings", {"embeddings": {"model": "item2vec"}}),
    Step("graph", "build", "embeddings", {"embeddings": {"model": "graph"}}),
    Step("trees", "build", "ctr_pmml", {"ctr_pmml": {"model": "gradient_boosted_trees"}}),
    Step("logistic", "build", "ctr_pmml", {"ctr_pmml": {"model": "logistic_regression"}}),
    Step("interest_ranker", "build", "interest_ranker"),
    Step("embedding_mlp", "build", "embedding_mlp"),
)


def _command(step: Step, plan: RunPlan, master: str) -> list[str]:
    text = plan.model_dump_json()
    if step.unit and not needs_spark(step.unit):
        return [sys.executable, "-m", "benchmarks.memory", "--build", step.unit, "--plan", text]
    jars = spark_jars(step.unit) if step.unit else []
    return [
        str(Path(sys.executable).parent / "spark-submit"),
        *("--master", master, "--driver-memory", driver_memory(1)),
        *("--conf", f"spark.driver.extraJavaOptions={driver_java_options()}"),
        *(("--jars", ",".join(jars)) if jars else ()),
        str(PROJECT_ROOT / "pipelines" / "spark_app.py"),
        *(step.step, text, *((step.unit,) if step.unit else ())),
    ]


def _watch(command: list[str], log: Path) -> tuple[float, int]:
    """Run a command to its end; returns its seconds, and its tree's peak of memory in bytes."""
    started = time.monotonic()
    peak = 0
    with log.open("wb") as output:
        process = psutil.Popen(command, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                peak = max(peak, _memory(process))
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            # Interrupted: a step ends its Java and its workers with itself.
            if process.poll() is None:
                process.terminate()
                process.wait(60)
    if process.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"{command[0]} failed; its log ends with: {tail}")
    return time.monotonic() - started, peak


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        # One of them ended meanwhile: the next look is half a second away.
        return 0
    return total


def _configuration(step: Step, folder: Path) -> Path:
    content = yaml.safe_load((PROJECT_ROOT / "pipeline.yaml").read_text(encoding="utf-8"))
    models = content["models"]
    for changes in (_FEW_PASSES, step.models):
        for unit, settings in changes.items():
            _merge(models[unit], settings)
    path = folder / f"{step.name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _merge(target: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


def _measure(home: Home, stack: Stack, names: list[str]) -> list[Peak]:
    environment = {
        **process_environment(),
        **ferry_environment(home, stack.secrets),
        "PYSPARK_PYTHON": sys.executable,
    }
    os.environ.update(environment)
    peaks = []
    for step in (known for known in STEPS if known.name in names):
        os.environ["FERRY_CONFIG"] = str(_configuration(step, home.root))
        command = _command(step, _plan(step), home.spark_master)
        seconds, peak = _watch(command, home.logs / f"{step.name}.log")
        typer.echo(f"{step.name}: {seconds:.0f} s, {peak / 1e9:.2f} GB")
        peaks.append(Peak(step.name, seconds, peak))
    return peaks


def _plan(step: Step) -> RunPlan:
    """Plan a run for one step, which finds what the steps before it left."""
    settings = load_settings()
    before = _newest_run(settings.lake)
    plan = plan_run(settings, _RUN_DATE, "manual", f"memory of {step.name}, {time.time_ns()}")
    if before:
        Path(before.root).rename(settings.lake.run(plan.version).root)
    return plan


def _newest_run(lake: Lake) -> RunPaths | None:
    versions = sorted(int(path.name) for path in Path(lake.runs).glob("*"))
    return lake.run(versions[-1]) if versions else None


def main(
    users: Annotated[int, typer.Option(help="About 95 events each.")] = 213_000,
    items: int = 27_000,
    step: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Kept; the data that it holds are used again.")
    ] = None,
    build: Annotated[str | None, typer.Option(hidden=True)] = None,
    plan: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure, print and save."""
    if build and plan:
        build_step(None, load_settings(), RunPlan.model_validate_json(plan), known_unit(build))
        return
    with tempfile.TemporaryDirectory(prefix="ferry-memory-") as temporary:
        root = (folder or Path(temporary)).absolute()
        os.environ.update(home_environment(root))
        home = load_home()
        stack = Stack(home, lambda _: None)
        try:
            stack.services_up()
            lake = Lake(str(home.lake))
            if not Path(lake.landing).exists():
                made = generate(lake, users, items, _DAYS, _SEED, _RUN_DATE)
                typer.echo(made)
            peaks = _measure(home, stack, step or [known.name for known in STEPS])
            run = _newest_run(lake)
        finally:
            stack.down()
        if run is None:
            raise RuntimeError(f"no step has left a run in {lake.runs}")
        if not Path(run.data_summary).exists():
            raise RuntimeError(f"there are no features in {run.root}: measure that step, too")
        summary = DataSummary.load(run.data_summary)
    table = _markdown(peaks, summary)
    save("memory", {"machine": machine(), "peaks": [peak._asdict() for peak in peaks]}, table)
    typer.echo(table)


def _markdown(peaks: list[Peak], data: DataSummary) -> str:
    worst = max(peaks, key=lambda peak: peak.peak_bytes)
    lines = [
        f"{machine()}; {data.rows:,} events, {data.users:,} users, {data.items:,} items; "
        f"a Java heap of {driver_memory(1)}",
        "",
        "| step | peak, GB | seconds |",
        "| --- | ---: | ---: |",
        *(f"| {p.step} | {p.peak_bytes / 1e9:.2f} | {p.seconds:.0f} |" for p in peaks),
        "",
        f"Most: {worst.step}, {worst.peak_bytes / 1e9:.2f} GB (less than {_LIMIT_GB} wanted).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
