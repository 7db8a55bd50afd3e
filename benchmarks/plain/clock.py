"""What each part of the script took, and how good what it made is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import typer


class Part(NamedTuple):
    """What one part of the script took, and how good it is."""

    name: str
    seconds: float
    processor: float
    quality: str


@dataclass
class Clock:
    """The parts so far."""

    parts: list[Part] = field(default_factory=list)

    @contextmanager
    def part(self, name: str) -> Iterator[dict[str, float]]:
        """Time a part; what the block notes in the dictionary is its quality."""
        quality: dict[str, float] = {}
        began, before = time.perf_counter(), time.process_time()
        yield quality
        seconds, processor = time.perf_counter() - began, time.process_time() - before
        noted = ", ".join(f"{key} {value:.4f}" for key, value in quality.items())
        self.parts.append(Part(name, seconds, processor, noted))
        typer.echo(f"{name}: {seconds:.1f} s, {processor:.1f} s of processor time  {noted}")
