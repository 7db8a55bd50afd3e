"""Breaks the code in one small place after the other, and sees whether the tests notice.

``faults.toml``, beside this file, names the faults: realistic mistakes, over all packages, each
with the cheapest tests that must fail then. They are made in a copy of the checkout. A fault that
no test notices is a gap in the tests, and ends the script with 1.

    .venv/bin/python -m scripts.break_code --list
    .venv/bin/python -m scripts.break_code lease-not-released text-not-escaped
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import cache_from_source
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict

from pipelines.cli_output import aligned

PROJECT_ROOT = Path(__file__).resolve().parent.parent
FAULTS_FILE = Path(__file__).with_name("faults.toml")
#: pytest's exit code when tests failed; any other than this and 0 says that it could not run them.
_FAILED = 1
_FIRST_FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+::\w+(?:\[.*?\](?= - |$))?)", re.MULTILINE)
# pytest cuts the reason in its summary to the width of a terminal; here it is whole.
_REASON = re.compile(r"^E +(\S.*)$", re.MULTILINE)
_WHERE = "import pipelines; print(pipelines.__file__)"


class Fault(BaseModel):
    """One mistake: `old`, which occurs once in `file`, becomes `new`; `tests` must fail then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    why: str
    #: Whether the tests operate a whole Airflow, which takes many minutes.
    slow: bool = False


class Outcome(BaseModel):
    """What came of a fault: the first test that failed, None if none did, and what it said."""

    model_config = ConfigDict(frozen=True)

    fault: str
    file: str
    noticed_by: str | None
    said: str | None
    seconds: float
    #: Why nothing can be said: the table does not fit the code, or pytest could not run.
    error: str | None = None


def load_faults() -> list[Fault]:
    """Return all faults, in the order of the table."""
    content = tomllib.loads(FAULTS_FILE.read_text(encoding="utf-8"))
    return [Fault.model_validate(entry) for entry in content["fault"]]


class Checkout:
    """A copy of a checkout, in which code is broken and tests run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Before the packages that are installed, also in the processes that tests start.
        self._environment = {**os.environ, "PYTHONPATH": str(folder)}

    @classmethod
    @contextmanager
    def copied(cls, root: Path) -> Iterator[Checkout]:
        """Give a copy of the files that git knows, or would add, as they are in `root` now.

        Raises:
            RuntimeError: Python takes the packages from elsewhere.
        """
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "-c", "-o", "--exclude-standard"],
            capture_output=True,
            text=True,
            check=True,
        )
        with tempfile.TemporaryDirectory(prefix="ferry-broken-") as name:
            folder = Path(name).resolve()
            for file in filter(None, listed.stdout.split("\0")):
                if (root / file).exists():
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(root / file, folder / file, follow_symlinks=False)
            copy = cls(folder)
            found = copy.run("-c", _WHERE, cwd=folder.parent).stdout.strip()
            if not Path(found).is_relative_to(folder):
                raise RuntimeError(f"the tests would import {found}, not the copy in {folder}")
            yield copy

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run this Python with the copy's packages."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd or self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def test(self, tests: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
        """Run `tests`, one after the other."""
        return self.run("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *options, *tests)

    @contextmanager
    def broken(self, fault: Fault) -> Iterator[None]:
        """Have the fault in the code for the time of the block.

        Raises:
            ValueError: the text to replace is not there, or more than once.
        """
        path = self.folder / fault.file
        content = path.read_text(encoding="utf-8")
        if (found := content.count(fault.old)) != 1:
            raise ValueError(f"{fault.file} has the text to replace {found} times")
        try:
            self._write(path, content.replace(fault.old, fault.new))
            yield
        finally:
            self._write(path, content)

    @staticmethod
    def _write(path: Path, content: str) -> None:
        path.write_text(content, encoding="utf-8")
        # Python tells a stale cache by time in seconds and size: too coarse for two writes in one.
        Path(cache_from_source(str(path))).unlink(missing_ok=True)


def try_fault(checkout: Checkout, fault: Fault) -> Outcome:
    """Make the mistake, and return which test noticed it."""
    began = time.monotonic()
    by, said, error = None, None, None
    try:
        with checkout.broken(fault):
            done = checkout.test(fault.tests, "-x")
    except (OSError, ValueError) as stale:
        error = str(stale)
    else:
        if done.returncode == _FAILED:
            failure, reason = (p.search(done.stdout) for p in (_FIRST_FAILURE, _REASON))
            by = failure[1] if failure else "(a test without a name)"
            said = reason[1] if reason else None
        elif done.returncode:
            error = f"pytest ended with {done.returncode}:\n{_end(done.stdout)}"
    return Outcome(
        fault=fault.name,
        file=fault.file,
        noticed_by=by,
        said=said,
        seconds=round(time.monotonic() - began, 1),
        error=error,
    )


def _end(output: str) -> str:
    return "\n".join(output.rstrip().splitlines()[-15:])


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Only these faults.")] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Only show the faults.")] = False,
    root: Annotated[Path, typer.Option(help="Another checkout.")] = PROJECT_ROOT,
    slow: Annotated[bool, typer.Option("--slow", help="Faults for a whole Airflow, too.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="First run all tests on the unbroken code.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the outcomes to this file.")
    ] = None,
) -> None:
    """Break the code in one place after the other, and see whether the tests notice."""
    faults = load_faults()
    if unknown := set(names or ()) - {fault.name for fault in faults}:
        raise typer.BadParameter(f"no such fault: {', '.join(sorted(unknown))}")
    # Who names a slow one wants it.
    chosen = [f for f in faults if (f.name in names if names else slow or list_only or not f.slow)]
    if list_only:
        _print([["fault", "file", "why it matters"], *([f.name, f.file, f.why] for f in chosen)])
        return
    outcomes: list[Outcome] = []
    with Checkout.copied(root) as checkout:
        if check:
            done = checkout.test(sorted({test for fault in chosen for test in fault.tests}))
            if done.returncode:
                typer.echo(f"the unbroken code fails already:\n{_end(done.stdout)}", err=True)
                raise typer.Exit(1)
        for fault in chosen:
            outcome = try_fault(checkout, fault)
            outcomes.append(outcome)
            typer.echo(f"{len(outcomes)}/{len(chosen)} {_told(outcome)}", err=True)
            if json_file:
                json_file.write_text(_as_json(outcomes), encoding="utf-8")
    rows = [[o.fault, o.file, o.noticed_by or _missed(o), f"{o.seconds:.0f}"] for o in outcomes]
    _print([["fault", "file", "noticed by", "seconds"], *rows])
    noticed = sum(outcome.noticed_by is not None for outcome in outcomes)
    typer.echo(f"{noticed} of {len(outcomes)} faults were noticed")
    if noticed < len(outcomes):
        raise typer.Exit(1)


def _told(outcome: Outcome) -> str:
    return f"{outcome.fault}: {outcome.noticed_by or outcome.error or 'NOT NOTICED'}"


def _missed(outcome: Outcome) -> str:
    return f"? {outcome.error.splitlines()[0]}" if outcome.error else "NOT NOTICED"


def _as_json(outcomes: Sequence[Outcome]) -> str:
    return json.dumps([outcome.model_dump() for outcome in outcomes], indent=2) + "\n"


def _print(rows: Sequence[Sequence[str]]) -> None:
    for line in aligned(rows):
        typer.echo(line)


if __name__ == "__main__":
    typer.run(main)
