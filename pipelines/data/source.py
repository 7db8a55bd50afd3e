"""Source files as data frames: CSV, JSON lines or Parquet, with the columns of the contract.

Values come as text where the format has no types (CSV, JSON lines), else in the file's own types;
:mod:`pipelines.data.values` reads both.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.types import StringType, StructType

from pipelines.config import FileSource
from pipelines.data.files import SparkFiles
from pipelines.errors import DataError

#: Columns that :func:`read_source` adds: the row as text, whether the row could not be split into
#: columns, its place in the source (to sort by), and the file that it stands in: a struct of path
#: (a URL), size (bytes) and modified (timestamp), as they were when the file was listed.
RAW = "_raw"
IS_MALFORMED = "_is_malformed"
POSITION = "_position"
FILE = "_file"

_BAD = "_bad"
_KEYS_SAMPLED = 1000


def read_source(
    spark: SparkSession,
    source: FileSource,
    path: str,
    required: Sequence[str],
    optional: Sequence[str] = (),
) -> DataFrame:
    """Return one row per source row, with the named columns (an absent optional one is null).

    Blank lines are no rows. A CSV row with another number of columns than the header, or a JSON
    line that is no object, is malformed.

    Raises:
        DataError: nothing is at `path`, the files are empty or disagree, a column is missing.
    """
    files = SparkFiles(spark)
    if not files.matches(path):
        raise DataError(f"{path}: no such file or folder")
    if source.format == "parquet":
        return _read_parquet(spark, source, path, required, optional)
    # Listed by the text reader, which applies the same rules (hidden files, wildcards) as CSV.
    names = sorted(spark.read.text(path).inputFiles())
    if source.format == "csv":
        return _read_csv(spark, files, source, path, names, required, optional)
    return _read_json_lines(spark, files, source, path, names, required, optional)


def _read_csv(
    spark: SparkSession,
    files: SparkFiles,
    source: FileSource,
    path: str,
    names: list[str],
    required: Sequence[str],
    optional: Sequence[str],
) -> DataFrame:
    header = _csv_header(files, source, path, names)
    columns = _locate(source, path, header, required, optional)
    # Read by position: names in a header may be blank, repeated, or differ in case.
    schema = StructType()
    for position in range(len(header)):
        schema = schema.add(f"c{position}", StringType())
    frame = spark.read.csv(
        path,
        schema=schema.add(_BAD, StringType()),
        header=source.header,
        sep=source.delimiter,
        quote='"',
        escape='"',
        mode="PERMISSIVE",
        columnNameOfCorruptRecord=_BAD,
    )
    fields = [sf.col(f"c{position}") for position in range(len(header))]
    as_csv = sf.to_csv(sf.struct(*fields), {"sep": source.delimiter, "quote": '"', "escape": '"'})
    return frame.select(
        *(_column(fields[i] if i is not None else None, name) for name, i in columns.items()),
        sf.coalesce(_BAD, as_csv).alias(RAW),
        sf.col(_BAD).isNotNull().alias(IS_MALFORMED),
        _position().alias(POSITION),
        _file().alias(FILE),
    )


def _csv_header(files: SparkFiles, source: FileSource, path: str, names: list[str]) -> list[str]:
    """Return the column names; without a header, the positions of the first row as text."""
    header: list[str] | None = None
    first_name = ""
    for name in names:
        line = files.first_line(name)
        if line is None:
            continue
        cells = [c.strip() for c in next(csv.reader([line], delimiter=source.delimiter))]
        if not source.header:
            return [str(position) for position in range(len(cells))]
        if header is None:
            header, first_name = cells, name
        elif [c.casefold() for c in cells] != [c.casefold() for c in header]:
            raise DataError(
                f"{path}: the files have different headers: {first_name} has "
                f"{', '.join(header)}; {name} has {', '.join(cells)}"
            )
    if header is None:
        raise DataError(f"{path}: no data: {'all files are empty' if names else 'no files in it'}")
    return header


def _read_json_lines(
    spark: SparkSession,
    files: SparkFiles,
    source: FileSource,
    path: str,
    names: list[str],
    required: Sequence[str],
    optional: Sequence[str],
) -> DataFrame:
    if not any(files.first_line(name) for name in names):
        raise DataError(f"{path}: no data: {'all files are empty' if names else 'no files in it'}")
    lines = spark.read.text(path).where(sf.trim("value") != "")
    keys: dict[str, None] = {}
    for row in lines.limit(_KEYS_SAMPLED).collect():
        keys.update(dict.fromkeys(_json_keys(row["value"])))
    present = list(keys)
    columns = _locate(source, path, present, required, optional)
    schema = StructType()
    for position in sorted({i for i in columns.values() if i is not None}):
        schema = schema.add(present[position], StringType())
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": _BAD}
    parsed = sf.from_json("value", schema.add(_BAD, StringType()), options).alias("row")
    frame = lines.select("value", parsed, _position().alias(POSITION), _file().alias(FILE))
    fields = sf.col("row")
    return frame.select(
        *(
            _column(fields.getField(present[i]) if i is not None else None, name)
            for name, i in columns.items()
        ),
        sf.col("value").alias(RAW),
        (fields.isNull() | fields.getField(_BAD).isNotNull()).alias(IS_MALFORMED),
        POSITION,
        FILE,
    )


def _json_keys(line: str) -> list[str]:
    try:
        content = json.loads(line)
    except ValueError:
        return []
    return list(content) if isinstance(content, dict) else []


def _read_parquet(
    spark: SparkSession,
    source: FileSource,
    path: str,
    required: Sequence[str],
    optional: Sequence[str],
) -> DataFrame:
    try:
        frame = spark.read.parquet(path)
    except (PySparkException, Py4JJavaError) as error:
        raise DataError(f"{path}: Spark can't read it as Parquet: {first_line(error)}") from error
    columns = _locate(source, path, frame.columns, required, optional)
    fields = [sf.col(f"`{name}`") for name in frame.columns]
    return frame.select(
        *(_column(fields[i] if i is not None else None, name) for name, i in columns.items()),
        sf.to_json(sf.struct(*fields)).alias(RAW),
        sf.lit(False).alias(IS_MALFORMED),
        _position().alias(POSITION),
        _file().alias(FILE),
    )


def first_line(error: Exception) -> str:
    """Return what went wrong in Spark, in one line."""
    # The Java exception's own text; py4j puts a line of its own before it.
    cause = error.java_exception.getMessage() if isinstance(error, Py4JJavaError) else error
    return str(cause).split("\n", 1)[0]


def _column(column: Column | None, name: str) -> Column:
    return (sf.lit(None).cast("string") if column is None else column).alias(name)


def _position() -> Column:
    # Partitions are not in the order of files, so the row number alone would not do.
    return sf.struct(
        "_metadata.file_path", "_metadata.file_block_start", sf.monotonically_increasing_id()
    )


def _file() -> Column:
    return sf.struct(
        sf.col("_metadata.file_path").alias("path"),
        sf.col("_metadata.file_size").alias("size"),
        sf.col("_metadata.file_modification_time").alias("modified"),
    )


def _locate(
    source: FileSource,
    path: str,
    present: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str],
) -> dict[str, int | None]:
    """Return the position in `present` of each wanted column; None for an absent optional one."""
    located: dict[str, int | None] = {}
    for name in (*required, *optional):
        wanted = source.columns.get(name, name)
        position = _find(wanted, present, named=source.format != "csv" or source.header)
        if position is None and name in required:
            hint = "the columns are" if source.header else "without a header, positions are"
            raise DataError(
                f"{path}: no column {wanted!r} for {name}; {hint}: {', '.join(present)}"
            )
        located[name] = position
    return located


def _find(wanted: str | int, present: Sequence[str], named: bool) -> int | None:
    if isinstance(wanted, int):
        return wanted if 0 <= wanted < len(present) else None
    if not named:
        return None
    if wanted in present:
        return present.index(wanted)
    folded = [name.casefold() for name in present]
    return folded.index(wanted.casefold()) if wanted.casefold() in folded else None
