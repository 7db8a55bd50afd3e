"""Fixtures that many tests share; each service is started once for the whole test session."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings
from xdist.scheduler.loadfile import LoadFileScheduling

from pipelines.capacity import Machine

pytest_plugins = ["tests.services", "tests.contexts"]

# As training starts TensorFlow (pipelines.models.rankers): a test may import it before that.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")

# Time limits per example fail on a busy machine, and on whatever imports something first.
hypothesis_settings.register_profile("ferry", deadline=None)
hypothesis_settings.load_profile("ferry")

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


#: Files that take minutes, the longest first: a worker that came to one last would work on alone.
_LONGEST = (
    "tests/operating",
    "tests/test_daily_run.py",
    "tests/release/faults/test_kill.py",
    "tests/models/test_recs.py",
    "tests/models/rankers/test_unit.py",
    "tests/models/test_embeddings.py",
    "tests/release/test_gating.py",
    "tests/release/faults/test_object_storage.py",
)


#: Fixtures that start a program; nor does `--quick` take the tests of these files, which start one
#: themselves or import what takes seconds.
_PROGRAMS = frozenset(
    ("spark", "redis_server", "mortal_redis", "s3_server", "model_server_session", "served")
)
_NOT_QUICK = (
    "tests/airflow",
    "tests/dags",
    "tests/docker/test_scripts.py",
    "tests/local/model_server",
    "tests/local/test_processes.py",
    "tests/local/test_run.py",
    "tests/local/test_setup.py",
    "tests/local/test_stack.py",
    "tests/models",
    "tests/operating",
    "tests/plugins",
    "tests/release/cli",
    "tests/release/faults",
    "tests/test_daily_run.py",
    "tests/test_spark_archive.py",
)
#: What a worker with a Spark, a TensorFlow and the programs of its tests takes.
_WORKER_BYTES = 4 << 30


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `make quick` and `make crowd`."""
    parser.addoption("--quick", action="store_true", help="only what starts no program")
    parser.addoption("--crowd", action="store_true", help="only what fills the machine up")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Don't import what a quick run leaves out anyway."""
    if not config.getoption("--quick"):
        return None
    path = collection_path.relative_to(config.rootpath).as_posix()
    return True if path.startswith(_NOT_QUICK) else None


def pytest_xdist_auto_num_workers() -> int:
    """Return how many workers this machine has cores and memory for."""
    machine = Machine.here()
    return max(1, min(machine.cores, machine.memory // _WORKER_BYTES))


def _scope(nodeid: str) -> str:
    """Return what a worker takes as a whole: a file, or the folder whose tests share an Airflow."""
    file = nodeid.partition("::")[0]
    return "tests/operating" if file.startswith("tests/operating/") else file


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest; leave out what starts a program, if that is asked for."""
    crowd = config.getoption("--crowd")
    _leave_out(config, items, lambda item: crowd != bool(item.get_closest_marker("crowd")))
    if config.getoption("--quick"):
        _leave_out(
            config, items, lambda i: not _PROGRAMS.isdisjoint(getattr(i, "fixturenames", ()))
        )
    order = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(_scope(item.nodeid), len(order)))


def _starts_a_program(item: pytest.Item) -> bool:
    return not _PROGRAMS.isdisjoint(getattr(item, "fixturenames", ()))


def _leave_out(
    config: pytest.Config, items: list[pytest.Item], is_out: Callable[[pytest.Item], bool]
) -> None:
    out = [item for item in items if is_out(item)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


class _Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """Shares the tests out by :func:`_scope`."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    """Return who shares the tests out."""
    return _Scheduling(config, log)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One local Spark for all tests (a JVM start costs about ten seconds)."""
    from pipelines.models.pmml_export import pmml_spark_conf
    from pipelines.spark import spark_session
    from pipelines.spark_archive import archive_options

    scratch = tmp_path_factory.mktemp("spark")
    with spark_session(
        "ferry-tests",
        master="local[2]",
        **{
            **pmml_spark_conf(),
            "spark.driver.memory": "1500m",
            "spark.sql.shuffle.partitions": "2",
            "spark.default.parallelism": "2",
            "spark.local.dir": str(scratch),
            "spark.sql.warehouse.dir": str(scratch / "warehouse"),
            # On data as small as these, compiling a query's code, optimising it, and planning it
            # again after each shuffle costs more than it saves: half of all processor time. What
            # spark-submit runs is left as it is, so both ways are tested.
            "spark.sql.codegen.wholeStage": "false",
            "spark.sql.codegen.factoryMode": "NO_CODEGEN",
            "spark.sql.adaptive.enabled": "false",
            # With the first compiler alone Java keeps a fifth of the usual space for compiled code:
            # over many builds it is full, and the same code is thrown away and compiled again.
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -Xss4m "
            "-XX:ReservedCodeCacheSize=240m -XX:+UseParallelGC "
            f"-Dderby.system.home={scratch} {archive_options()}",
        },
    ) as session:
        yield session


@pytest.fixture(autouse=True)
def _nothing_stays_cached() -> Iterator[None]:
    """A build leaves frames cached until its session ends, which here outlives hundreds of builds.

    Each keeps its plan, and with it the hash tables of its joins: 16 MB for the smallest one.
    """
    yield
    if "pyspark.sql" in sys.modules:
        from pyspark.sql import SparkSession

        if session := SparkSession.getActiveSession():
            session.catalog.clearCache()
