"""Counting what was read: rows by day, what they add up to, and the files that they stand in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as sf

from pipelines.data.contract import DAY, Reason
from pipelines.data.day_records import SourceFile, path_of_url
from pipelines.data.source import FILE

#: Columns of rows that are tallied: what is to be done with a row (``input``, ``earlier`` or
#: ``later``), and a hash of all that the lake keeps of it (bigint; null: no digest counts it).
SCOPE, HASH = "scope", "hash"
_LOW_32_BITS = 0xFFFFFFFF


@dataclass(frozen=True)
class Tally:
    """Row counts of the days that are written, and what is out of them."""

    valid: dict[date, int]
    bad: dict[tuple[date, Reason], int]
    earlier_rows: int
    later_rows: int
    newest: date | None
    #: Of days whose rows have timestamps of their own: all of a day's rows, and how many.
    digests: dict[date, str]
    dated: dict[date, int]
    #: By day, the files in which its rows stand.
    files: dict[date, frozenset[SourceFile]]

    @property
    def input_rows(self) -> int:
        """All rows of the days that are written."""
        return sum(self.valid.values()) + sum(self.bad.values())

    def quarantined(self) -> dict[Reason, int]:
        """Return the rows that are quarantined, by reason."""
        counts: Counter[Reason] = Counter()
        for (_, reason), count in self.bad.items():
            counts[reason] += count
        return {reason: counts[reason] for reason in Reason if counts[reason]}

    def bad_by_day(self) -> dict[date, int]:
        """Return the rows that are quarantined, by day."""
        counts: Counter[date] = Counter()
        for (day, _), count in self.bad.items():
            counts[day] += count
        return dict(counts)

    def without(self, days: Collection[date]) -> Tally:
        """Return the tally in which `days` are left alone."""
        valid = {day: n for day, n in self.valid.items() if day not in days}
        bad = {key: n for key, n in self.bad.items() if key[0] not in days}
        left = self.input_rows - sum(valid.values()) - sum(bad.values())
        return replace(self, valid=valid, bad=bad, earlier_rows=self.earlier_rows + left)


def tally_rows(scoped: DataFrame) -> Tally:
    """Count rows that have scope, day, reason, hash and file."""
    # Two sums of 32 bits each: they can't overflow, and the order of rows has no part in them.
    high, low = sf.shiftrightunsigned(HASH, 32), sf.col(HASH).bitwiseAND(sf.lit(_LOW_32_BITS))
    sums = {
        "rows": sf.count("*"),
        "dated": sf.count(HASH),
        "high": sf.sum(high),
        "low": sf.sum(low),
    }
    by_file = scoped.groupBy(SCOPE, DAY, "reason", FILE).agg(
        *(column.alias(name) for name, column in sums.items())
    )
    file = sf.struct("path", "size", sf.unix_millis("modified").alias("modified"))
    grouped = (
        by_file.select("*", *(sf.col(f"{FILE}.{name}") for name in ("path", "size", "modified")))
        .groupBy(SCOPE, DAY, "reason")
        .agg(*(sf.sum(name).alias(name) for name in sums), sf.collect_set(file).alias("files"))
    )
    valid: dict[date, int] = {}
    bad: dict[tuple[date, Reason], int] = {}
    outside = {"earlier": 0, "later": 0}
    newest: date | None = None
    totals: defaultdict[date, list[int]] = defaultdict(lambda: [0, 0, 0])
    files: defaultdict[date, set[SourceFile]] = defaultdict(set)
    for row in grouped.collect():
        scope, day, reason, count = row[SCOPE], row[DAY], row["reason"], row["rows"]
        if reason is None:
            newest = max(newest or day, day)
        if row["dated"]:
            for i, name in enumerate(("dated", "high", "low")):
                totals[day][i] += row[name]
        if scope != "input":
            outside[scope] += count
            continue
        if reason is None:
            valid[day] = count
        else:
            bad[day, Reason(reason)] = count
        files[day] |= {_source_file(f) for f in row["files"] if f["path"] is not None}
    return Tally(
        valid=valid,
        bad=bad,
        earlier_rows=outside["earlier"],
        later_rows=outside["later"],
        newest=newest,
        digests={day: f"{n}-{high:x}-{low:x}" for day, (n, high, low) in totals.items()},
        dated={day: n for day, (n, _, _) in totals.items()},
        files={day: frozenset(of_day) for day, of_day in files.items()},
    )


def _source_file(row: Row) -> SourceFile:
    modified = datetime.fromtimestamp(row["modified"] / 1000, UTC)
    return SourceFile(path=path_of_url(row["path"]), size=row["size"], modified=modified)
