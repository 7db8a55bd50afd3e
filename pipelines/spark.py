"""The Spark session that every Spark step uses."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.spark_archive import archive_options

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What is the same wherever Ferry runs; master and memory come from spark-submit, that is from
# Airflow's Spark connection, or from the caller.
_CONF = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.sources.partitionOverwriteMode": "dynamic",
    # The lake has one small file a day: without this each would become a task of its own.
    "spark.sql.files.openCostInBytes": "65536",
    # By default Spark lists each of its folders in a task of its own: minutes for years of days.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "16",
    # Every hash table of a join takes a whole page, by default some 16 to 32 MB of a driver like
    # ours: the dozens of small joins of a build would fill it. No row is as large as this.
    "spark.buffer.pageSize": "4m",
    # By default Python has 15 s to fetch a result and a broadcast 300 s to be made: on a crowded
    # machine neither is a sign that something hangs.
    "spark.python.authenticate.socketTimeout": "300s",
    "spark.sql.broadcastTimeout": "3600",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}

# Steps are short and run beside each other: a collector with threads of its own in the background
# takes their cores. So does the optimising compiler: it gets only what is ten times as hot as by
# default, which saves a fifth of the processor time of ingest and features over ml-latest-small.
_JAVA_OPTIONS = (
    "-XX:+UseParallelGC -XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=6000 "
    "-XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000 "
    f"-Dlog4j2.configurationFile=file:{Path(__file__).with_name('log4j2.properties')}"
)

_BYTES_PER_SHUFFLE_PARTITION = 8 << 20
_MAX_SHUFFLE_PARTITIONS = 400


def driver_java_options() -> str:
    """Return the options of the Java that a step runs in."""
    return f"{_JAVA_OPTIONS} {archive_options()}"


def build_session(app_name: str, master: str | None = None, **conf: str) -> SparkSession:
    """Return a Spark session; `master` is only for a process that spark-submit did not start."""
    # Without this the workers take PATH's python3, which has none of our packages.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(app_name)
    if master:
        builder = builder.master(master)
    for key, value in {**_CONF, **conf}.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


@contextmanager
def spark_session(app_name: str, master: str | None = None, **conf: str) -> Iterator[SparkSession]:
    """Give a Spark session that is stopped at the end of the block."""
    session = build_session(app_name, master, **conf)
    try:
        yield session
    finally:
        session.stop()


def size_shuffles(spark: SparkSession, *folders: str) -> int:
    """Set the number of shuffle partitions by the size of what a step reads; returns it.

    Spark's fixed 200 cost more than the work itself where the data are small (a fit that is
    evaluated over 600 users took four times as long), and cached frames are not coalesced. The
    files are Parquet: about 10 bytes an event, so one partition holds some 800,000 of them.
    """
    size = stored_bytes(*folders)
    least = 2 * spark.sparkContext.defaultParallelism
    count = min(_MAX_SHUFFLE_PARTITIONS, max(least, -(-size // _BYTES_PER_SHUFFLE_PARTITION)))
    spark.conf.set("spark.sql.shuffle.partitions", str(count))
    return count


def stored_bytes(*folders: str) -> int:
    """Return the size of the Parquet files in these folders."""
    return sum(
        file.stat().st_size for folder in folders for file in Path(folder).rglob("*.parquet")
    )
