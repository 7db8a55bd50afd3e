"""Folders and files of the lake, through the file system that Spark itself uses for the path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class FileStatus:
    """A file or folder as its file system lists it."""

    path: str
    size: int
    modified: datetime


class SparkFiles:
    """Lists, deletes, moves and reads on any file system that Spark knows (local, HDFS, s3a)."""

    def __init__(self, spark: SparkSession) -> None:
        self._jvm: Any = spark._jvm
        context: Any = spark.sparkContext
        self._conf = context._jsc.hadoopConfiguration()

    def _open(self, path: str) -> tuple[Any, Any]:
        hadoop_path = self._jvm.org.apache.hadoop.fs.Path(path)
        return hadoop_path.getFileSystem(self._conf), hadoop_path

    def matches(self, pattern: str) -> bool:
        """Whether a file or folder matches the path, which may hold wildcards."""
        filesystem, path = self._open(pattern)
        return bool(filesystem.globStatus(path))

    def names(self, folder: str) -> list[str]:
        """Return the names in `folder`, sorted; none if it does not exist."""
        filesystem, path = self._open(folder)
        if not filesystem.exists(path):
            return []
        return sorted(status.getPath().getName() for status in filesystem.listStatus(path))

    def list_folder(self, folder: str) -> list[FileStatus]:
        """Return what lies in `folder`; nothing if it does not exist."""
        filesystem, path = self._open(folder)
        if not filesystem.exists(path):
            return []
        return [_status(status) for status in filesystem.listStatus(path)]

    def list_source(self, pattern: str) -> list[FileStatus]:
        """Return the files that Spark reads for a path, which may hold wildcards, or a folder."""
        filesystem, path = self._open(pattern)
        return [
            _status(file)
            for status in filesystem.globStatus(path) or ()
            for file in self._files_in(filesystem, status)
        ]

    def _files_in(self, filesystem: Any, status: Any) -> Iterator[Any]:
        if status.getPath().getName().startswith(("_", ".")):
            return
        if status.isFile():
            yield status
            return
        for inside in filesystem.listStatus(status.getPath()):
            yield from self._files_in(filesystem, inside)

    def delete(self, path: str) -> None:
        """Delete a file or a folder with all in it; nothing happens if it does not exist."""
        filesystem, hadoop_path = self._open(path)
        filesystem.delete(hadoop_path, True)

    def replace(self, source: str, target: str) -> None:
        """Move the folder `source` to `target`; what was there is gone.

        Raises:
            OSError: the file system refused the move.
        """
        filesystem, source_path = self._open(source)
        _, target_path = self._open(target)
        filesystem.delete(target_path, True)
        if not filesystem.rename(source_path, target_path):
            raise OSError(f"can't move {source} to {target}")

    def write_lines(self, path: str, lines: list[str]) -> None:
        """Write a small text file."""
        filesystem, hadoop_path = self._open(path)
        stream = filesystem.create(hadoop_path, True)
        try:
            stream.write("".join(f"{line}\n" for line in lines).encode())
        finally:
            stream.close()

    def read_lines(self, path: str) -> list[str]:
        """Return the lines of a small text file."""
        return self._lines(path, limit=None)

    def first_line(self, path: str) -> str | None:
        """Return the first line that is not blank, or None; unpacks compressed files."""
        lines = self._lines(path, limit=1)
        return lines[0].removeprefix("\ufeff") if lines else None

    def _lines(self, path: str, limit: int | None) -> list[str]:
        filesystem, hadoop_path = self._open(path)
        stream = filesystem.open(hadoop_path)
        try:
            codecs = self._jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(self._conf)
            codec = codecs.getCodec(hadoop_path)
            plain = codec.createInputStream(stream) if codec else stream
            text = self._jvm.java.io.InputStreamReader(plain, "UTF-8")
            reader = self._jvm.java.io.BufferedReader(text)
            lines: list[str] = []
            while (limit is None or len(lines) < limit) and (line := reader.readLine()) is not None:
                if line.strip():
                    lines.append(line)
            return lines
        finally:
            stream.close()


def local_folder(path: str) -> Path:
    """Return a folder of the lake, which every process that works on it sees at the same place."""
    return Path(path.removeprefix("file://"))


def _status(status: Any) -> FileStatus:
    modified = datetime.fromtimestamp(status.getModificationTime() / 1000, UTC)
    return FileStatus(status.getPath().toString(), status.getLen(), modified)
