"""The files of a source that has files for each day: which day each of them is of."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from datetime import date

from pipelines.config import FileSource
from pipelines.data.day_records import SourceFile, plain_path
from pipelines.data.files import SparkFiles
from pipelines.lake import Lake

_ANY_DAY = "*"
_MARK = "\0"
_DAY = r"(?P<day>\d{4}-\d{2}-\d{2})"


class DayFiles:
    """Tells which day each file of a source is of, by the path of the source."""

    def __init__(self, source: FileSource, lake: Lake) -> None:
        self._everything = source.resolve(lake, _ANY_DAY)
        # As Hadoop does: no doubled or trailing slash, no "." on the way.
        template = posixpath.normpath(plain_path(source.resolve(lake, _MARK)))
        self._pattern = _day_pattern(template)

    def day_of(self, path: str) -> date | None:
        """Return the day of a file; None if it is of no day."""
        match = self._pattern.search(path)
        return _as_date(match["day"]) if match else None

    def list(self, files: SparkFiles) -> dict[date, frozenset[SourceFile]]:
        """Return the files of each day that has any, by one listing of the source."""
        found: defaultdict[date, set[SourceFile]] = defaultdict(set)
        for status in files.list_source(self._everything):
            file = SourceFile.of(status)
            if day := self.day_of(file.path):
                found[day].add(file)
        return {day: frozenset(of_day) for day, of_day in found.items()}


def _as_date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _day_pattern(template: str) -> re.Pattern[str]:
    """Return what matches the path of a file of any day; `template` has a mark for the day."""
    before, *rest = template.split(_MARK)
    # Further places of the day must hold the same one.
    parts = [_as_regex(before), _DAY, _as_regex(rest[0])]
    parts += [f"(?P=day){_as_regex(part)}" for part in rest[1:]]
    # Of a folder, the files in it.
    return re.compile(f"(?:^|/){''.join(parts).removeprefix('/')}(?:/.+)?$")


def _as_regex(glob: str) -> str:
    """Return a regular expression of one of Hadoop's path patterns."""
    parts = re.split(r"(\*|\?|\[[^\]]*\]|\{[^}]*\})", glob)
    return "".join(map(_part_as_regex, parts))


def _part_as_regex(part: str) -> str:
    if part == "*":
        return "[^/]*"
    if part == "?":
        return "[^/]"
    if part.startswith("["):
        return f"[^{part[2:]}" if part.startswith("[!") else part
    if part.startswith("{") and part.endswith("}"):
        return f"(?:{'|'.join(map(_as_regex, part[1:-1].split(',')))})"
    return re.escape(part)
