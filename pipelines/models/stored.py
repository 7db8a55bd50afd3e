"""The folder that keeps a version's evaluated fit, so that it can be judged again another day.

What is released has seen today's holdout, what is evaluated has not. So each version carries the
fit that was evaluated, under ``evaluation/``: Parquet, Spark ML's own JSON and Parquet, or a
SavedModel; nothing that runs code when it is read.
"""

from __future__ import annotations

import re
from pathlib import Path

#: The folder's name, below a build's working folder and below a version.
EVALUATION = "evaluation"

_SPARK_PART = re.compile(r"(part-\d+)-[0-9a-f-]{36}(?:-c000)?")


def tidy_spark_files(folder: Path) -> None:
    """Remove Hadoop's checksums and marks below `folder`, and the random part of file names.

    Object storage has checksums of ours; a build that is done again overwrites its own files.
    """
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        if file.name.startswith(".") or file.name == "_SUCCESS":
            file.unlink()
        else:
            file.rename(file.with_name(_SPARK_PART.sub(r"\1", file.name)))
