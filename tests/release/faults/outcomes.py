"""What became of each fault: a row of the table, deterministic, so that it can be compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipelines.errors import FerryError
from tests.release.faults.conftest import World
from tests.release.faults.steps import run_in
from tests.release.faults.table import check_section
from tests.release.faults.tripwire import Trip

_HEAD = ("step", "fault", "the error says", "live meanwhile", "after a rerun")
_LONGEST = 150
#: What differs from one session to the next.
_PLAIN = (
    (r"Failed to upload \S+ to \S+: ", ""),
    (r"Error running script.*?-(?=[A-Z]+ )", ""),
    # One that hangs: on a crowded machine gRPC gives up its connection before we give up the call.
    (r"UNAVAILABLE: .*connection attempt timed out.*", "DEADLINE_EXCEEDED: Deadline Exceeded"),
    (r"UNAVAILABLE: .*", "UNAVAILABLE"),
    (r"scores \S+, the trainer \S+", "scores <one number>, the trainer <another>"),
    (r"'utf-8' codec.*", "no UTF-8"),
    (r"https?://127\.0\.0\.1:\d+/test-\d+", "<bucket>"),
    (r"(https?://|ipv4:)?127\.0\.0\.1:\d+", "<address>"),
    (r"\d{12}", "<version>"),
    (r"(?<![\w>])/\S*/(?=<version>)", "…/"),
    (r"history/\d+", "history/<epoch>"),
    (r"\d[\d,.]* (bytes|MB)", "<bytes>"),
    (r"\s+", " "),
)  # fmt: skip


def plain(message: str) -> str:
    """Return an error's message without what differs each time, and not all of a long one."""
    for pattern, name in _PLAIN:
        message = re.sub(pattern, name, message)
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST].rstrip()}…"


@dataclass
class Outcomes:
    """The rows of one section, in the order of the faults."""

    world: World
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def fail(
        self, step: str, trip: Trip | None = None, while_paused: Callable[[], None] | None = None
    ) -> str:
        """Make a step that must fail with an error of ours; returns what the error says.

        In this process, or in one of its own where it has to be stopped half-way.
        """
        if trip:
            code, effects, message = self.world.run(step, trip, while_paused)
            assert code == 3, f"{step} ended with {code}; it did: {effects}"
            assert message
            return message
        try:
            run_in(self.world.context, self.world.call(step))
        except FerryError as error:
            return f"{type(error).__name__}: {error}"
        raise AssertionError(f"{step} succeeded")

    def live(self, old: int, new: int) -> str:
        """Assert that what is live is whole, and return which of the two it is."""
        return "the old" if self.world.check_whole(old, new) == old else "the new"

    def add(self, step: str, fault: str, error: str, live: str, rerun: str) -> None:
        """Add a row."""
        self.rows.append((step, fault, plain(error), live, rerun))

    def check(self, title: str) -> None:
        """Assert that the document has these rows."""
        check_section(title, _HEAD, self.rows)


@contextmanager
def noted(fault: str) -> Iterator[None]:
    """Let whatever goes wrong in the block say at which fault it did."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"at the fault: {fault}")
        raise
