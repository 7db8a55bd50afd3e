"""The documentation against what there is: commands, targets, configuration, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup

from pipelines.cli import app
from pipelines.config import PROJECT_ROOT, PipelineConfig
from pipelines.data.contract import Reason

PAGES = sorted(
    [
        PROJECT_ROOT / "README.md",
        PROJECT_ROOT / "benchmarks/README.md",
        *(PROJECT_ROOT / "docs").rglob("*.md"),
    ]
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TARGET = re.compile(r"`make ([a-z]+)|^make ([a-z]+)", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(PROJECT_ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(page.read_text()) if kind == language]


def ferry_commands() -> Iterator[tuple[str, str]]:
    """Yield each `ferry` command that stands in a line of its own, with its page."""
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.splitlines():
                command = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
                if command.startswith("ferry ") and "…" not in command and " | " not in command:
                    yield name(page), command


def parse(arguments: list[str]) -> None:
    """Let the command line read a command without doing it.

    Raises:
        typer.TyperException: it would refuse it.
    """
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="ferry")
    while isinstance(command, TyperGroup):
        _, found, arguments = command.resolve_command(context, arguments)
        assert found is not None
        command = found
        context = typer.Context(command, parent=context)
    command.parse_args(context, arguments)


@pytest.mark.parametrize(("page", "command"), ferry_commands())
def test_commands_are_ones_that_ferry_takes(page: str, command: str) -> None:
    parse(shlex.split(command)[1:])


def test_there_are_commands_to_test() -> None:
    assert len(list(ferry_commands())) > 8
    with pytest.raises(typer.TyperException):
        parse(["recommend", "1", "--no-such-option"])
    with pytest.raises(typer.TyperException):
        parse(["recomend", "1"])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = {
                re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings
            }
            assert anchor in anchors, link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_configuration_is_valid(page: Path) -> None:
    default = yaml.safe_load((PROJECT_ROOT / "pipeline.yaml").read_text())
    for block in blocks(page, "yaml"):
        content = yaml.safe_load(block)
        if "services" in content:
            continue
        for section, values in content.items():
            merged = {**default, section: {**default[section], **values}}
            PipelineConfig.model_validate(merged)


def test_make_targets_exist() -> None:
    known = set(re.findall(r"^([a-z]+):", (PROJECT_ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = {first or second for first, second in _TARGET.findall(page.read_text())}
        assert named <= known, name(page)


def test_every_reason_for_quarantine_is_explained() -> None:
    text = (PROJECT_ROOT / "docs/data.md").read_text()
    assert [reason for reason in Reason if f"`{reason.value}`" not in text] == []


def test_every_dag_is_in_the_runbook() -> None:
    text = (PROJECT_ROOT / "docs/operating.md").read_text()
    dags = {path.stem for path in (PROJECT_ROOT / "dags").glob("*.py")}
    for dag in sorted(d for d in dags if not d.startswith("ferry_")):
        assert f"| `{dag}` |" in text, dag
