"""Which days an ingest reads and writes. Pure rules.

A day is read again if it was read before it was complete or if its source has changed since, as
far back as ``data.late_days`` says. A day that is whole, unchanged, or older stays as it is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from pipelines.data.day_records import DayRecord, SourceFile

FilesByDay = Mapping[date, frozenset[SourceFile]]


@dataclass(frozen=True)
class LakeDays:
    """The days of a lake: those that it holds, whole or half-written, and how each was read."""

    #: Those that are whole.
    held: frozenset[date]
    records: Mapping[date, DayRecord]
    #: Those whose last write was interrupted.
    interrupted: frozenset[date] = frozenset()

    def is_incomplete(self, day: date) -> bool:
        """Whether a day was read before it was complete."""
        return day in self.records and not self.records[day].complete


@dataclass(frozen=True)
class Scope:
    """What an ingest may write: a run's days, or days that somebody named (`only`)."""

    run_date: date
    late_days: int
    lake: LakeDays
    only: frozenset[date] | None = None

    def is_recent(self, day: date) -> bool:
        """Whether late rows of a day are still taken in."""
        return self.run_date - timedelta(days=self.late_days) <= day <= self.run_date

    def is_read_from_history(self, day: date) -> bool:
        """Whether a day's rows are taken from a source with the whole history, or looked at."""
        if self.only is not None:
            return day in self.only
        if day > self.run_date:
            return False
        return day not in self.lake.held or self.is_recent(day) or self.lake.is_incomplete(day)

    def is_changed(self, day: date, digest: str) -> bool:
        """Whether a day whose rows were looked at has to be written."""
        if day == self.run_date or day not in self.lake.held or self.only is not None:
            return True
        record = self.lake.records.get(day)
        return record is None or record.digest != digest

    def is_cut_off(self, day: date, rows: int) -> bool:
        """Whether a history that begins with `rows` of `day` has lost the rest of that day.

        (One of the last thirty days is cut where it pleases.) It must not replace what is held.
        """
        record = self.lake.records.get(day)
        if record is None or not record.complete or day not in self.lake.held:
            return False
        return self.only is None and day != self.run_date and rows < (record.rows or 0)

    def file_days(self, files: FilesByDay) -> frozenset[date]:
        """Return the days whose own files are read; each replaces what the lake holds of it.

        They are the run date and, before it, the days that the lake lacks since the one that it
        holds last, recent ones whose files are new or changed, and any that was read too early.
        """
        if self.only is not None:
            return self.only & files.keys()
        held_before = [day for day in self.lake.held if day < self.run_date]
        recent = self.run_date - timedelta(days=self.late_days)
        since = min(recent, max(held_before)) if held_before else recent
        chosen = {self.run_date}
        for day, of_day in files.items():
            if day >= self.run_date:
                continue
            record = self.lake.records.get(day)
            if record is None:
                is_wanted = day >= since or day in self.lake.interrupted
            elif not record.complete:
                is_wanted = True
            else:
                is_wanted = self.is_recent(day) and not record.has_read(of_day)
            if is_wanted:
                chosen.add(day)
        return frozenset(chosen)

    def carriers(self, replaced: Collection[date], files: FilesByDay) -> frozenset[date]:
        """Return the days besides `replaced` in whose files late rows of these may stand."""
        days = sorted(replaced)
        reach = timedelta(days=self.late_days)
        found = set()
        for day in files.keys() - set(replaced):
            # The newest of them before this file is the first to be out of its reach.
            place = bisect_left(days, day)
            if place and day - days[place - 1] <= reach:
                found.add(day)
        return frozenset(found)

    def changed_too_late(self, files: FilesByDay) -> dict[date, str]:
        """Return the days whose files changed after rows of theirs were no longer taken in."""
        changed = {}
        for day, record in self.lake.records.items():
            is_old = day < self.run_date and not self.is_recent(day)
            if is_old and record.complete and not record.has_read(files.get(day, frozenset())):
                changed[day] = fingerprint(files[day])
        return changed


def fingerprint(files: Collection[SourceFile]) -> str:
    """Return files in one line, to see whether they are the same."""
    return "; ".join(sorted(f"{f.path} {f.size} {f.modified.isoformat()}" for f in files))
