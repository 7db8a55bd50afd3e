"""Files of the lake's days, as tasks write them and the driver puts them in their places.

Hadoop starts a ``chmod`` process for each local file and folder that it makes, three a day: 35 s
for eleven years of days of a few rows each. So tasks write the files themselves, each attempt into
a folder of its own, and say which they wrote; what a failed attempt left is never put in place.
"""

from __future__ import annotations

import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.data.contract import DAY

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: What is being written lies in folders of these names, which no reader of the table looks into.
STAGING = ".writing-"
#: Below such a folder: the days as they were.
_REPLACED = "replaced"
#: Rows that are held before they go into a day's file.
_ROWS_PER_GROUP = 1 << 17


def write_parts(frame: DataFrame, staging: Path) -> dict[date, list[Path]]:
    """Write the rows of `frame` below `staging`; returns each day's files.

    Rows of a day must follow each other in their partition; those of one partition go into one
    file a day. The partition column is not in the files.
    """
    folder = str(staging)

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        attempt = Path(folder) / uuid.uuid4().hex
        written = [(day, _write(attempt, day, parts)) for day, parts in _by_day(batches)]
        days, files = pa.array([d for d, _ in written], pa.date32()), [f for _, f in written]
        yield pa.RecordBatch.from_arrays([days, pa.array(files, pa.string())], [DAY, "file"])

    parts: dict[date, list[Path]] = defaultdict(list)
    for row in frame.mapInArrow(write, f"{DAY} date, file string").collect():
        parts[row[DAY]].append(Path(row["file"]))
    return parts


def _by_day(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[date, Iterator[pa.RecordBatch]]]:
    """Give each day with its rows, which must be taken before the next day is asked for."""
    waiting: list[tuple[date, pa.RecordBatch]] = []

    def pieces() -> Iterator[tuple[date, pa.RecordBatch]]:
        for batch in batches:
            days = pc.run_end_encode(batch[DAY])
            start, plain = 0, batch.drop_columns([DAY])
            for day, end in zip(days.values.to_pylist(), days.run_ends.to_pylist(), strict=True):
                yield day, plain.slice(start, end - start)
                start = end

    source = pieces()

    def of_day(day: date, first: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        yield first
        for other, piece in source:
            if other != day:
                waiting.append((other, piece))
                return
            yield piece

    while (found := waiting.pop() if waiting else next(source, None)) is not None:
        yield found[0], of_day(*found)


def _write(attempt: Path, day: date, pieces: Iterator[pa.RecordBatch]) -> str:
    path = attempt / f"{DAY}={day.isoformat()}" / f"part-{attempt.name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    first = next(pieces)
    held, rows = [first], first.num_rows
    # The pages carry checksums: nothing else finds a bit that has changed on the disk.
    with pq.ParquetWriter(path, first.schema, write_page_checksum=True) as writer:
        for piece in pieces:
            held.append(piece)
            rows += piece.num_rows
            if rows >= _ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_batches(held))
                held, rows = [], 0
        if held:
            writer.write_table(pa.Table.from_batches(held))
    return str(path)


def put_in_place(parts: dict[date, list[Path]], table: Path, staging: Path) -> None:
    """Make `parts` the days of `table`, each by one rename, and remove `staging`.

    A crash leaves each day as it was, or as it is now, or out of the table: then it is where
    :func:`clear_staging` finds it.
    """
    replaced = staging / _REPLACED
    replaced.mkdir(parents=True, exist_ok=True)
    for first, *others in parts.values():
        for other in others:
            other.rename(first.parent / other.name)
        target = table / first.parent.name
        if target.exists():
            target.rename(replaced / target.name)
        first.parent.rename(target)
    shutil.rmtree(staging)


def clear_staging(table: Path) -> None:
    """Remove what an interrupted write of `table` left, and put back what it had taken out.

    The source need not have such a day any more.
    """
    for folder in table.glob(f"{STAGING}*"):
        for day in (folder / _REPLACED).glob(f"{DAY}=*"):
            if not (table / day.name).exists():
                day.rename(table / day.name)
        shutil.rmtree(folder)
