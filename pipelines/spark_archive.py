"""An archive of the classes that Spark's Java loads: each step starts with them parsed and checked.

A step on few data spends much of its time on loading some twenty thousand classes. Java can map
them from a file instead (application class-data sharing, JEP 350). The file belongs to one Java and
to one set of Spark's jars: for any other, Java goes on without it.

``python -m pipelines.spark_archive`` writes it beside the installed packages, in a minute.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import ServiceError

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

# Java warns on standard output of classes that it leaves out, and of an archive not its own.
_QUIET = "-Xlog:disable -Xlog:all=error:stderr"


def archive_path() -> Path:
    """Return where the archive is, or would be."""
    return Path(sys.prefix) / "spark.jsa"


def archive_options() -> str:
    """Return the options with which a driver's Java uses the archive, if there is one."""
    path = archive_path()
    return f"-XX:SharedArchiveFile={path} -Xshare:auto {_QUIET}" if path.exists() else ""


def write_archive() -> Path:
    """Write the archive anew; returns its path.

    Raises:
        ServiceError: Spark did not run, or Java wrote no archive.
    """
    target = archive_path()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="spark-archive-") as folder:
        written = Path(folder) / target.name
        # Its own classes are loaded once: they need no optimising compiler.
        options = f"-XX:TieredStopAtLevel=1 -XX:ArchiveClassesAtExit={written} {_QUIET}"
        done = subprocess.run(
            [
                Path(sys.executable).parent / "spark-submit",
                *("--master", "local[2]", "--driver-memory", "1g"),
                *("--conf", f"spark.driver.extraJavaOptions={options}"),
                __file__,
                folder,
            ],
            env={**os.environ, "PYSPARK_PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not written.exists():
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise ServiceError(f"Java wrote no archive of Spark's classes: {''.join(last)}")
        written.replace(target)
    return target


def _double(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    for batch in batches:
        yield batch.assign(rating=batch["rating"] * 2)


def _load_classes(spark: SparkSession, folder: Path) -> None:
    """Do what Ferry's steps do: whatever they load is loaded."""
    from pyspark.ml.classification import GBTClassifier
    from pyspark.ml.feature import StringIndexer, VectorAssembler
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import Window
    from pyspark.sql import functions as F  # noqa: N812

    events = spark.range(400).select(
        (F.col("id") % 20).cast("int").alias("user"),
        (F.col("id") % 13).cast("int").alias("item"),
        (F.col("id") % 5).cast("double").alias("rating"),
        F.timestamp_seconds(F.col("id") * 1_000).alias("at"),
    )
    events.write.csv(str(folder / "csv"), header=True)
    read = spark.read.csv(str(folder / "csv"), header=True, schema=events.schema, mode="PERMISSIVE")
    days = read.withColumn("day", F.to_date("at"))
    days.write.mode("overwrite").partitionBy("day").parquet(str(folder / "days"))
    days = spark.read.parquet(str(folder / "days")).cache()
    newest = Window.partitionBy("user").orderBy(F.desc("at"))
    ranked = days.withColumn("place", F.row_number().over(newest)).where("place <= 5")
    liked = ranked.groupBy("user").agg(F.collect_list("item").alias("items"), F.avg("rating"))
    days.join(F.broadcast(liked), "user").groupBy("item").count().orderBy("count").collect()
    days.hint("merge").join(liked, "user", "left_anti").count()
    events.select("item", "rating").mapInPandas(_double, "item int, rating double").toPandas()
    als = ALS(userCol="user", itemCol="item", ratingCol="rating", rank=2, maxIter=1, seed=1)
    als.setNumBlocks(1).fit(days)
    indexed = StringIndexer(inputCol="item", outputCol="index").fit(days).transform(days)
    rows = VectorAssembler(inputCols=["index", "user"], outputCol="features").transform(indexed)
    labelled = rows.withColumn("label", (F.col("rating") > 2).cast("int"))
    GBTClassifier(maxIter=1, maxDepth=2, seed=1).fit(labelled).transform(labelled).collect()


def main(arguments: list[str]) -> None:
    """Write the archive; under spark-submit, with a folder, load the classes."""
    if arguments:
        from pipelines.spark import spark_session

        # More partitions would load no more classes, and take most of the time.
        with spark_session("ferry class archive", **{"spark.sql.shuffle.partitions": "2"}) as spark:
            _load_classes(spark, Path(arguments[0]))
        return
    try:
        write_archive()
    except (ServiceError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
