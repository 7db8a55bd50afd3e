"""How numbers and times are said to a person, in the terminal and on pages."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.evaluation.gates import GateResult


def counted(number: int, what: str) -> str:
    """Return a number with the noun behind it: 1 row, 2,000 rows."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def age(days: int) -> str:
    """Return the age of data whose last day was so many days ago; that of today is not over."""
    return f"{counted(days, 'day')} old" if days > 0 else "a day that is not over yet"


def verdict_counts(gates: Iterable[GateResult]) -> str:
    """Return how many gates passed, refused, or had nothing to compare with."""
    verdicts = [gate.verdict for gate in gates]
    counts = [(v, verdicts.count(v)) for v in dict.fromkeys(verdicts)]
    return ", ".join(f"{count} {verdict.replace('_', ' ')}" for verdict, count in counts)
