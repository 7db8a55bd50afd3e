"""The files of a MovieLens folder, and what the landing area was made of."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import DataError
from pipelines.lake import Lake

#: Name, size and modification time (ns) of each file.
FileStates = tuple[tuple[str, int, int], ...]

_MOVIELENS_FILES = ("ratings.csv", "movies.csv")


def movielens_files(folder: Path) -> FileStates:
    """Return the state of a folder's files.

    Raises:
        DataError: the folder does not hold a MovieLens data set.
    """
    files = []
    for name in _MOVIELENS_FILES:
        file = folder / name
        if not file.is_file():
            raise DataError(
                f"DATA={folder}: there is no file {name} in it; it takes a MovieLens folder with "
                f"{' and '.join(_MOVIELENS_FILES)}"
            )
        found = file.stat()
        files.append((name, found.st_size, found.st_mtime_ns))
    return tuple(files)


def landed_ns(lake: Lake) -> int | None:
    """Return when the landing area's files were put in place; None if there are none."""
    ratings = Path(lake.landing) / "ratings"
    return ratings.stat().st_mtime_ns if ratings.exists() else None
