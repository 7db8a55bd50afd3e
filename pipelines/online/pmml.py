"""Scores from a PMML file, by pypmml: a scorer that knows nothing of Spark."""

from __future__ import annotations

import json
import math
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from py4j.java_gateway import GatewayClient, GatewayParameters, JavaGateway, launch_gateway
from py4j.protocol import Py4JError
from pypmml import Model
from pypmml.base import PMMLContext
from pypmml.jvm import PMMLError, Py4jGateway

from pipelines.errors import DataError, ServiceError

_SCORE = "probability(1)"
_SECONDS_TO_END = 5.0


class _Gateway(Py4jGateway):  # type: ignore[misc]
    """pypmml's gateway, but one that keeps hold of its Java process and can so end it."""

    def launch_gateway(
        self, java_opts: list[str] | None = None, java_path: str | None = None
    ) -> None:
        """Start Java; it ends by itself when this process does."""
        port, self._process = launch_gateway(
            classpath=self.classpath,
            javaopts=[*self.java_opts, *(java_opts or [])],
            java_path=java_path,
            die_on_exit=True,
            return_proc=True,
        )
        parameters = GatewayParameters(port=port, auto_convert=True)
        self._client = GatewayClient(gateway_parameters=parameters)
        Py4jGateway._gateway = JavaGateway(self._client, gateway_parameters=parameters)
        Py4jGateway._jvm = Py4jGateway._gateway.jvm

    def shutdown(self) -> None:
        """Stop Java and wait for its end."""
        super().shutdown()
        # Java that died could not be told, and the client goes on calling it: each finaliser of one
        # of its objects would write a traceback into whatever this process does then.
        self._client.is_connected = False
        # Java waits for the end of its input, which only this process can close.
        self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class PmmlScorer:
    """Scores rows by one PMML file.

    All scorers of a process share one Java process, which ends with the last of them, or with
    this process.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _open: ClassVar[int] = 0

    def __init__(self, path: Path) -> None:
        """Load `path`.

        Raises:
            DataError: it is not a PMML of a classifier with the label 1.
            ServiceError: there is no Java to start.
        """
        self.path = path
        self._model: Model | None = None
        with PmmlScorer._lock:
            PmmlScorer._open += 1
        self._is_open = True
        try:
            self._start()
            self._model = Model.fromFile(str(path))
            self._names = [str(name) for name in self._model.inputNames]
            outputs = [str(name) for name in self._model.outputNames]
            if _SCORE not in outputs:
                raise DataError(f"{path} has no output {_SCORE!r}, only {', '.join(outputs)}")
        except PMMLError as error:
            self.close()
            raise DataError(f"{path} can't be read as PMML: {error}") from error
        except OSError as error:
            self.close()
            raise ServiceError(f"Java, which scores PMML, does not start: {error}") from error
        except BaseException:
            self.close()
            raise

    @classmethod
    def _start(cls) -> None:
        with cls._lock:
            if PMMLContext.gateway() is None:
                gateway = _Gateway()
                gateway.launch_gateway()
                PMMLContext(gateway_instance=gateway)

    def close(self) -> None:
        """Let go of the model; the last one stops the Java process. May be called twice."""
        with PmmlScorer._lock:
            if not self._is_open:
                return
            self._is_open = False
            # Its finaliser talks to the Java process, so the model goes first.
            self._model = None
            PmmlScorer._open -= 1
            if PmmlScorer._open == 0:
                PMMLContext.shutdown()

    def __enter__(self) -> PmmlScorer:
        """Return the scorer, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the scorer."""
        self.close()

    def score(self, rows: Sequence[Mapping[str, float | str | None]]) -> list[float]:
        """Return the probability of the label 1 for each row of features by name.

        None and NaN are missing values, as is a field that the row does not have; names that the
        model does not use are ignored.

        Raises:
            DataError: the model gives no score for a row.
            ValueError: the scorer is closed.
        """
        if self._model is None:
            raise ValueError("this PmmlScorer is closed")
        if not rows:
            return []
        data = [[_json_value(row.get(name)) for name in self._names] for row in rows]
        # One call for the batch: every call is a round trip to the Java process.
        request = json.dumps({"columns": self._names, "data": data})
        try:
            answer = json.loads(self._model.predict(request))
        except (PMMLError, Py4JError) as error:
            raise DataError(f"{self.path} gives no scores: {error}") from error
        column = answer["columns"].index(_SCORE)
        scores = [values[column] for values in answer["data"]]
        if None in scores:
            row = rows[scores.index(None)]
            raise DataError(f"{self.path} gives no score for {dict(row)}")
        return [float(score) for score in scores]


def _json_value(value: float | str | None) -> float | str | None:
    return None if isinstance(value, float) and math.isnan(value) else value
