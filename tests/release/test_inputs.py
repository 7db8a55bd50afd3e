"""What enters a version, and whether a run has anything new for a unit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipelines.config import PROJECT_ROOT, PipelineConfig, load_pipeline_config
from pipelines.lake import RunPaths
from pipelines.models_config import UNITS, Unit
from pipelines.release.inputs import (
    LiveInputs,
    RunInputs,
    settings_inputs,
    tree_digest,
    why_train,
)
from pipelines.run import RunPlan, make_version
from tests.release.versions import DAY, plan

NOW = {"the events": "1", "the code": "2"}
LIVE = make_version(DAY, 1)


def planned(attempt: int = 2, **more: Any) -> RunPlan:
    return plan("recs", attempt).model_copy(update=more)


def live(inputs: dict[str, str] | None = NOW, **since: Any) -> LiveInputs:
    return LiveInputs(LIVE, inputs, {make_version(DAY, 2): found for found in since.values()})


@pytest.mark.parametrize(
    ("run", "found", "reason"),
    [
        (planned(), live(), None),
        (planned(run_type="scheduled"), live(), None),
        (planned(), None, "nothing is live"),
        (planned(train_again=True), live(), "asked to train also what has not changed"),
        (planned(run_type="backfill"), live(), "a backfill builds each of its days"),
        (planned(activate="always"), live(), "activate: always"),
        (planned(activate="never"), live(), "activate: never"),
        # An older date, and what is live by this run itself.
        (planned(version=LIVE - 10_000), live(), "is not older"),
        (planned(attempt=1), live(), "is not older"),
        (planned(), live(None), f"what entered {LIVE}, which is live, is not known"),
        (planned(), live(NOW | {"the events": "0"}), f"new since {LIVE}, .*: the events$"),
        (planned(), live({"the code": "2"}), "the events$"),
        (planned(), live(NOW | {"users": "3"}), "users$"),
        (planned(), live({"the code": "0"}), "the events, the code$"),
        # What was built since of something else says nothing.
        (planned(3), live(newer={"the events": "0", "the code": "2"}), None),
        (planned(3), live(newer=None), None),
        (planned(3), live(newer=NOW), f"{make_version(DAY, 2)} was built from the same since"),
    ],
)
def test_what_is_live_stays_only_if_all_is_as_it_was(
    run: RunPlan, found: LiveInputs | None, reason: str | None
) -> None:
    said = why_train(run, NOW, found, skip_unchanged=True)
    if reason is None:
        assert said is None
        assert why_train(run, NOW, found, skip_unchanged=False) == (
            "operations.skip_unchanged is off"
        )
    else:
        assert said is not None
        assert re.search(reason, said), said


def leaves(section: BaseModel, path: str = "") -> Iterator[str]:
    """Yield the path of each setting."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def with_other(section: BaseModel, path: str) -> BaseModel:
    """Return the section with another value of one setting, maybe one that would be refused."""
    name, _, rest = path.partition(".")
    value = getattr(section, name)
    other: Any
    if rest:
        other = with_other(value, rest)
    elif isinstance(value, bool):
        other = not value
    elif isinstance(value, int | float):
        other = value + 1
    elif isinstance(value, str):
        other = f"{value}x"
    elif isinstance(value, tuple):
        other = (*value, 7)
    elif isinstance(value, dict):
        other = {**value, "another": next(iter(value.values()), "x")}
    else:
        assert value is None, path
        other = 7.0
    return section.model_copy(update={name: other})


def concerns(path: str, unit: Unit) -> bool:
    """Tell whether a setting may have a part in a unit's versions."""
    if path.startswith(("operations.", "retention.")):
        return False
    if path in ("release.load_timeout_seconds", "release.memory_reserve"):
        return False
    owner = next(
        (
            u
            for u in UNITS
            for p in ("models", "gates.models", "gates.lists")
            if path.startswith(f"{p}.{u}.") or path == f"{p}.{u}"
        ),
        unit,
    )
    return owner == unit


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_each_setting_counts_for_the_units_that_it_concerns() -> None:
    shipped = load_pipeline_config(PROJECT_ROOT / "pipeline.yaml")
    before = {unit: settings_inputs(shipped, unit) for unit in UNITS}
    paths = list(leaves(shipped))
    assert len(paths) > 100
    for path in paths:
        other = with_other(shipped, path)
        assert isinstance(other, PipelineConfig)
        changed = {unit for unit in UNITS if settings_inputs(other, unit) != before[unit]}
        assert changed == {unit for unit in UNITS if concerns(path, unit)}, path


def test_any_change_of_the_code_counts(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    source = tmp_path / "inner" / "a.py"
    source.write_text("x = 1\n")
    before = tree_digest(tmp_path)
    (tmp_path / "inner" / "__pycache__").mkdir()
    (tmp_path / "inner" / "__pycache__" / "a.pyc").write_text("made by Python")
    assert tree_digest(tmp_path) == before
    source.write_text("x = 2\n")
    changed = tree_digest(tmp_path)
    source.rename(tmp_path / "a.py")
    assert len({before, changed, tree_digest(tmp_path)}) == 3


def test_a_run_says_what_has_nothing_new(tmp_path: Path) -> None:
    paths = RunPaths(str(tmp_path))
    assert RunInputs.of_run(paths) is None
    settings = {"recs": {"the settings": "1"}, "embeddings": {"the settings": "2"}}
    inputs = RunInputs(data={"the events": "3"}, settings=settings, unchanged={"recs": LIVE})
    inputs.save(paths.inputs)
    found = RunInputs.of_run(paths)
    assert found == inputs
    assert found.of("embeddings") == {"the events": "3", "the settings": "2"}
    assert not found.has_nothing_new
    assert found.reason("embeddings") is None
    assert found.reasons() == [
        f"nothing new since {LIVE}, which stays live: recs is not trained again "
        "(operations.skip_unchanged)"
    ]
    both = inputs.model_copy(update={"unchanged": {"recs": LIVE, "embeddings": LIVE}})
    assert both.has_nothing_new
