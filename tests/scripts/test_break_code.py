"""The table of faults fits the code: each text is there once, and so is each test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.config import PROJECT_ROOT
from scripts.break_code import Checkout, Fault, load_faults

FAULTS = load_faults()


def test_names_are_unique() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)


def test_every_package_is_broken_somewhere() -> None:
    packages = {path.parent for path in (PROJECT_ROOT / "pipelines").rglob("*.py")}
    folders = [*packages, *(PROJECT_ROOT / name for name in ("local", "dags", "plugins", "docker"))]
    broken = {(PROJECT_ROOT / fault.file).parent for fault in FAULTS}
    assert not set(folders) - broken


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_can_be_made_and_its_tests_exist(fault: Fault) -> None:
    content = (PROJECT_ROOT / fault.file).read_text(encoding="utf-8")
    assert content.count(fault.old) == 1
    assert fault.new != fault.old
    assert fault.why.endswith(".")
    for test in fault.tests:
        file, _, name = test.partition("::")
        text = (PROJECT_ROOT / file).read_text(encoding="utf-8")
        if name:
            assert re.search(rf"^def {re.escape(name.partition('[')[0])}\(", text, re.MULTILINE)


def test_a_mistake_is_made_and_undone(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    fault = Fault(name="n", file="a.py", old="1", new="2", tests=(), why="")
    with Checkout(tmp_path).broken(fault):
        assert (tmp_path / "a.py").read_text() == "x = 2\n"
    assert (tmp_path / "a.py").read_text() == "x = 1\n"
    twice = fault.model_copy(update={"old": "\n", "file": "b.py"})
    (tmp_path / "b.py").write_text("\n\n")
    with pytest.raises(ValueError, match="2 times"), Checkout(tmp_path).broken(twice):
        pass
