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

    def cut_off(
        self, rows: Mapping[date, int], paths: Collection[str], first: date
    ) -> frozenset[date]:
        """Return the days of which a history has lost a part: rows are only added to them.

        `rows` are those that it has now of days that were looked at, `paths` its files, `first`
        its first day. A history may be cut where it pleases, by files or in the middle of a day.
        """
        found = set()
        for day, count in rows.items():
            record = self.lake.records.get(day)
            if record is None or day not in self.lake.held | self.lake.interrupted:
                continue
            has_less = count < (record.rows or 0)
            has_lost_files = any(file.path not in paths for file in record.files)
            begins_here = day == first
            is_behind = min(self.lake.held, default=day) < day
            if (has_less and (has_lost_files or begins_here)) or (begins_here and is_behind):
                found.add(day)
        return frozenset(found)

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
            if day in self.lake.interrupted:
                is_wanted = True
            elif record is None:
                is_wanted = day >= since
            elif not record.complete:
                is_wanted = True
            else:
                is_wanted = self.is_recent(day) and not record.has_read(of_day)
            if is_wanted:
                chosen.add(day)
        return frozenset(chosen | self._given_to(chosen, files))

    def _given_to(self, changed: set[date], files: FilesByDay) -> set[date]:
        """Return the days that have rows from an earlier state of the files of `changed` days."""
        given = set()
        for day in changed & self.lake.records.keys():
            paths = {file.path for file in files.get(day, ())}
            for n in range(1, self.late_days + 1):
                before = day - timedelta(days=n)
                record = self.lake.records.get(before)
                if before in files and record and any(f.path in paths for f in record.files):
                    given.add(before)
        return given

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
        """Return the days whose files came or changed when their rows were no longer taken in."""
        records = self.lake.records
        changed = {}
        for day, of_day in files.items():
            if day >= self.run_date or self.is_recent(day):
                continue
            record = records.get(day)
            if record is None:
                # Files that were there when a run passed by them were left out by somebody's will.
                later = [r.read_at for d, r in records.items() if d > day]
                is_late = bool(later) and any(file.modified > min(later) for file in of_day)
                is_late &= min(self.lake.held, default=day) < day
            else:
                is_late = record.complete and not record.has_read(of_day)
            if is_late:
                changed[day] = fingerprint(of_day)
        return changed


def fingerprint(files: Collection[SourceFile]) -> str:
    """Return files in one line, to see whether they are the same."""
    return "; ".join(sorted(f"{f.path} {f.size} {f.modified.isoformat()}" for f in files))
