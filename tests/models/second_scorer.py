"""Scores of a PMML file by JPMML's evaluator: another implementation than the one that serves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from jpmml_evaluator import _package_classpath, make_evaluator
from jpmml_evaluator.py4j import Py4JBackend
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway


class SecondScorer:
    """JPMML's evaluator in a Java process of its own."""

    def __init__(self, backend: Py4JBackend) -> None:
        self._backend = backend

    def score(self, path: Path, rows: Sequence[Mapping[str, float | str | None]]) -> list[float]:
        """Return the probability of the label 1 for each row; None is a missing value."""
        evaluator = make_evaluator(path, backend=self._backend)
        # Columns of objects: pandas would make NaN of None, and a number of an integer.
        table = pd.DataFrame([dict(row) for row in rows], dtype=object)
        scored = evaluator.evaluateAll(table.where(table.notna(), None))
        assert "errors" not in scored or scored["errors"].isna().all(), scored["errors"]
        return [float(score) for score in scored["probability(1)"]]


@contextmanager
def second_scorer() -> Iterator[SecondScorer]:
    """Give the scorer; its Java process ends with the block."""
    port, process = launch_gateway(
        classpath=os.pathsep.join(_package_classpath()),
        # None: that of JAVA_HOME, else of PATH.
        java_path=None,
        die_on_exit=True,
        return_proc=True,
    )
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port))
    try:
        yield SecondScorer(Py4JBackend(gateway))
    finally:
        gateway.shutdown()
        process.stdin.close()
        process.wait(10)
        process.stdout.close()
