"""The registry: light to import, and honest about what a unit needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.models import registry
from pipelines.models_config import UNITS
from tests.models.world import World


def test_importing_it_imports_neither_spark_nor_tensorflow() -> None:
    heavy = "{'pyspark', 'tensorflow', 'keras', 'pandas', 'pyspark2pmml'}"
    code = (
        f"import sys; import pipelines.models.registry; print(sorted({heavy} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_every_unit_is_known() -> None:
    assert {unit for unit in UNITS if registry.needs_spark(unit)} == {
        "recs",
        "embeddings",
        "interest_ranker",
        "ctr_pmml",
    }
    assert {unit for unit in UNITS if not registry.feature_tables(unit)} == {"recs", "embeddings"}
    assert {unit for unit in UNITS if "user_history" in registry.feature_tables(unit)} == {
        "din",
        "dien",
    }
    assert registry.spark_jars("recs") == []
    jars = registry.spark_jars("ctr_pmml")
    assert jars
    assert all(Path(jar).is_file() for jar in jars)


def test_a_spark_unit_needs_a_session(world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="recs is built by Spark"):
        registry.build("recs", None, world.inputs(tmp_path))
