"""What the lake holds, in a few characters: the same rows give the same digest, however written.

Which of its files a day consists of tells quickly that it is as it was. But a day that is read
again gets other files, also where nothing has changed: of days with new files the rows are read.
What they came to is kept in ``ratings/_contents.json``, with the files that it is true of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.data.contract import DAY, EVENT_COLUMNS, StoredModel, filesystem_of
from pipelines.lake import Lake

if TYPE_CHECKING:
    import pyarrow as pa

_THREADS = 2


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    files: str
    rows: str


class _Contents(StoredModel):
    """What is known of each day: what identifies its files, and the digest of its rows."""

    days: dict[date, _Content]


def day_contents(lake: Lake, days: Mapping[date, str]) -> dict[date, str]:
    """Return a digest of the events of each of `days`, given by what identifies its files.

    Whoever calls it must have the lake to itself.
    """
    path = f"{lake.ratings}/_contents.json"
    known = _known(path)
    new = sorted(
        day for day, files in days.items() if day not in known or known[day].files != files
    )
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda day: _digest_of_day(lake, day), new)
        found = {
            day: _Content(files=days[day], rows=rows)
            for day, rows in zip(new, digests, strict=True)
        }
    if new:
        _Contents(days=known | found).save(path)
    return {day: (found.get(day) or known[day]).rows for day in days}


def _known(path: str) -> dict[date, _Content]:
    try:
        return _Contents.load(path).days
    except (FileNotFoundError, ValidationError):
        # It only saves reading the days.
        return {}


def _digest_of_day(lake: Lake, day: date) -> str:
    return table_content(f"{lake.ratings}/{DAY}={day.isoformat()}", EVENT_COLUMNS)


def table_content(folder: str, keys: tuple[str, ...]) -> str:
    """Return a digest of the rows of all Parquet files in `folder`, in whatever order they are.

    No two rows may be equal in `keys`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import fs

    filesystem, path = filesystem_of(folder)
    parts = [
        pq.ParquetFile(info.path, filesystem=filesystem).read(use_threads=False)
        for info in filesystem.get_file_info(fs.FileSelector(path))
        if info.base_name.endswith(".parquet") and not info.base_name.startswith((".", "_"))
    ]
    digest = hashlib.sha256()
    if parts:
        rows = pa.concat_tables(parts).combine_chunks()
        rows = rows.sort_by([(key, "ascending") for key in keys])
        for name in sorted(rows.column_names):
            column = rows[name].combine_chunks()
            digest.update(f"{name} {column.type} {len(column)}\n".encode())
            digest.update(_content(column))
    return digest.hexdigest()[:32]


def _content(column: pa.Array) -> bytes:
    from pyarrow import types

    is_plain = any(
        test(column.type) for test in (types.is_integer, types.is_floating, types.is_timestamp)
    )
    if is_plain and not column.null_count:
        content: bytes = column.to_numpy(zero_copy_only=False).tobytes()
        return content
    return repr(column.to_pylist()).encode("utf-8", "surrogatepass")
