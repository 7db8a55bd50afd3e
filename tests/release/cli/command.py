"""A `ferry` command as a test calls it, and versions for it to work on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.evaluation.gates import GateResult
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from tests.release.versions import build, release

UNIT = "recs"
MODEL = "embedding_mlp"
#: Those that `pipeline.yaml` enables: others are shown only while they are live.
ENABLED = ("recs", "embeddings", "interest_ranker", "ctr_pmml", "embedding_mlp")
TYPO = "rec"
REASON = "ndcg_at_10 is 0.0312, must be more than 0.0834, the baseline popularity " * 4
GATES = [
    GateResult(
        group="model",
        name=f"{verdict}_gate",
        verdict=verdict,
        value=None if verdict == "not_compared" else 0.0312,
        threshold=0.0834,
        baseline=0.08,
        reason=REASON.strip(),
    )
    for verdict in ("passed", "refused", "not_compared")
]


@dataclass(frozen=True)
class Output:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """What it printed, on one line: where lines are broken does not matter."""
        return " ".join(self.out.split())

    def json(self) -> Any:
        return json.loads(self.out)

    def error(self) -> str:
        """Return the one line that a failed command leaves."""
        assert self.code == 1
        assert self.err.startswith("ferry: ")
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        return self.err.strip()


Ferry = Callable[..., Output]


def two_live(context: ReleaseContext, folder: Path) -> tuple[int, int]:
    first, second = (release(context, folder, UNIT, n, folder).version for n in (1, 2))
    return first, second


def refused(context: ReleaseContext, folder: Path, attempt: int) -> Manifest:
    return build(context, folder, UNIT, attempt, folder, gates=GATES)


def empty_redis(context: ReleaseContext) -> None:
    for key in context.online._redis.scan_iter(f"{context.online.prefix}:*"):
        context.online._redis.delete(key)


def spoil(context: ReleaseContext, version: int) -> None:
    part = context.registry.sealed(UNIT, version).table_parts("user_items")[0]
    context.registry.objects.put_text(context.registry.key(UNIT, version, part.name), "spoiled")


def fits(output: Output) -> bool:
    """Tell whether nothing is wider than a terminal, or shows how Python writes a value."""
    lines = output.out.splitlines()
    return all(len(line) <= 80 and "None" not in line and "{" not in line for line in lines)


def of_unit(output: Output, unit: str = UNIT) -> Any:
    return next(status for status in output.json() if status["unit"] == unit)
