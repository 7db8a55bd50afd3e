"""The PMML scorer: batches, missing values, errors, and one Java process that ends."""

from __future__ import annotations

import gc
import logging
import math
import os
from pathlib import Path

import psutil
import pytest

from pipelines.errors import DataError, ServiceError
from pipelines.online.pmml import PmmlScorer

PMML = """<?xml version="1.0" encoding="UTF-8"?>
<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4">
  <Header/>
  <DataDictionary>
    <DataField name="x" optype="continuous" dataType="double"/>
    <DataField name="kind" optype="categorical" dataType="string">
      <Value value="good"/><Value value="?"/>
    </DataField>
    <DataField name="label" optype="categorical" dataType="integer">
      <Value value="0"/><Value value="1"/>
    </DataField>
  </DataDictionary>
  <RegressionModel functionName="classification" normalizationMethod="logit">
    <MiningSchema>
      <MiningField name="label" usageType="target"/>
      <MiningField name="x" missingValueReplacement="2.0"/>
      <MiningField name="kind" invalidValueTreatment="asValue" invalidValueReplacement="?"
                   missingValueReplacement="?"/>
    </MiningSchema>
    <Output>
      <OutputField name="probability(0)" optype="continuous" dataType="double"
                   feature="probability" value="0"/>
      <OutputField name="probability(1)" optype="continuous" dataType="double"
                   feature="probability" value="1"/>
    </Output>
    <RegressionTable targetCategory="1" intercept="0.5">
      <NumericPredictor name="x" coefficient="-1.0"/>
      <CategoricalPredictor name="kind" value="good" coefficient="3.0"/>
    </RegressionTable>
    <RegressionTable targetCategory="0" intercept="0.0"/>
  </RegressionModel>
</PMML>
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "model.pmml").write_text(PMML, encoding="utf-8")
    return tmp_path / "model.pmml"


def expected(x: float, good: bool) -> float:
    return 1 / (1 + math.exp(-(0.5 - x + (3.0 if good else 0.0))))


def java_processes() -> list[psutil.Process]:
    children = psutil.Process(os.getpid()).children()
    return [child for child in children if "pypmml" in " ".join(child.cmdline())]


def scorers() -> int:
    return len(java_processes())


def test_a_batch_is_scored_in_its_order(path: Path) -> None:
    with PmmlScorer(path) as scorer:
        scores = scorer.score(
            [
                {"x": 1.0, "kind": "good", "user_rated_1": "not an input"},
                {"x": None, "kind": None},
                {"x": math.nan, "kind": "never seen"},
                {},
                {"x": 0.1 + 0.2, "kind": "?"},
            ]
        )
        assert scorer.score([]) == []
    missing = expected(2.0, good=False)
    wanted = [expected(1.0, good=True), missing, missing, missing, expected(0.1 + 0.2, good=False)]
    assert scores == pytest.approx(wanted, abs=1e-12)


def test_one_java_process_serves_all_and_ends_with_the_last(path: Path) -> None:
    assert scorers() == 0
    first, second = PmmlScorer(path), PmmlScorer(path)
    assert scorers() == 1
    first.close()
    first.close()
    assert second.score([{"x": 0.0, "kind": "good"}]) == [pytest.approx(expected(0.0, good=True))]
    with pytest.raises(ValueError, match="closed"):
        first.score([{}])
    second.close()
    assert scorers() == 0
    with PmmlScorer(path) as again:
        assert len(again.score([{}])) == 1


def test_nothing_calls_a_java_process_that_died(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = PmmlScorer(path)
    left_over = scorer._model
    (java,) = java_processes()
    java.kill()
    java.wait(10)
    # A record of the log keeps the traceback, and with it the model.
    with caplog.at_level(logging.CRITICAL, logger="py4j"):
        with pytest.raises(DataError, match="gives no scores"):
            scorer.score([{"x": 1.0}])
        scorer.close()
    del left_over
    gc.collect()
    assert "Java server" not in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [("no xml", "can't be read as PMML"), (PMML.replace("(1)", "(yes)"), r"has no output")],
)
def test_another_file_is_refused_by_name(path: Path, content: str, message: str) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as error:
        PmmlScorer(path)
    assert str(path) in str(error.value)
    assert scorers() == 0


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        PmmlScorer(tmp_path / "nothing.pmml")


def test_without_java_it_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ServiceError, match="Java"):
        PmmlScorer(path)
