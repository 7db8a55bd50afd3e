"""How much of a run is neither training nor data work: scheduling, process starts, idling.

Whole runs of the daily DAG, as `make run` makes them, each in a folder and on ports of its own. A
step is at work from when its process is up (Spark's session is there, TensorFlow is imported) until
it is done; the overhead is the time of the run in which no step was. What a step's start costs
another step that is at work beside it, on the same processors, does not count here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import typer

from benchmarks.setting import home_environment, machine, save
from pipelines.config import PROJECT_ROOT
from pipelines.lake import Lake, RunPaths
from pipelines.work_time import seconds_at_work, work_times

_LIMIT = 0.35


class Run(NamedTuple):
    """One run: seconds from its trigger to its end, in which some step was at work, its folders."""

    wall: float
    work: float
    paths: RunPaths

    @property
    def overhead(self) -> float:
        """The share of the run in which nothing was at work."""
        return 1 - self.work / self.wall


@contextmanager
def whole_run(data: Path | None, run_date: str) -> Iterator[Run]:
    """Make one run in a home of its own; its folders are removed after the block."""
    with tempfile.TemporaryDirectory(prefix="ferry-overhead-") as home:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("FERRY_", "AIRFLOW"))},
            **home_environment(Path(home)),
        }

        def local(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "local", *arguments],
                cwd=PROJECT_ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{' '.join(arguments)} failed: {done.stdout}{done.stderr}")
            return done.stdout

        try:
            output = local("run", f"--data={data or ''}", f"--run-date={run_date}")
        finally:
            local("down")
        seconds = re.search(r"whole run\W+([\d.]+)", output)
        (version,) = [int(v) for v in re.findall(r"Run date .*, version (\d+)", output)]
        if seconds is None:
            raise RuntimeError(f"no duration in: {output}")
        paths = Lake(f"{home}/lake").run(version)
        yield Run(float(seconds[1]), seconds_at_work(work_times(paths)), paths)


def measure(data: Path | None, run_date: str) -> Run:
    """Make one run, and keep its times only."""
    with whole_run(data, run_date) as run:
        return run


def main(
    data: Annotated[
        Path | None, typer.Option(help="A MovieLens folder, or synthetic data.")
    ] = None,
    run_date: str = "2018-09-24",
    repetitions: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Measure, print and save."""
    runs = [measure(data, run_date) for _ in range(repetitions)]
    overhead = median(run.overhead for run in runs)
    source = data.name if data else "synthetic data"
    lines = [
        f"{machine()}; {source}, {repetitions} runs",
        "",
        "| run | seconds | at work | overhead |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {number} | {run.wall:.0f} | {run.work:.0f} | {run.overhead:.0%} |"
            for number, run in enumerate(runs, start=1)
        ),
        "",
        f"Median overhead: {overhead:.0%} (at most {_LIMIT:.0%} wanted).",
    ]
    table = "\n".join(lines) + "\n"
    print(table)
    figures = {
        "median_overhead": overhead,
        "runs": [{"wall": run.wall, "work": run.work} for run in runs],
    }
    save("overhead", {"machine": machine(), "data": source, **figures}, table)


if __name__ == "__main__":
    typer.run(main)
