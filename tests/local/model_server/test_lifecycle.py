"""Versions, labels, reloads and warmup on a running server."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from pipelines.patience import patient
from tests.local.model_server import saved_models
from tests.local.model_server.conftest import Served
from tests.local.model_server.processes import eventually, model, running

ONE = '{"instances": [1.0]}'


@pytest.fixture
def base(served: Served, tmp_path: Path) -> Iterator[Path]:
    """Return a base path for a model of the test's own; the standing config comes back after."""
    yield tmp_path / "m"
    served.reload()


def test_a_new_version_replaces_the_old_without_one_failed_request(
    served: Served, base: Path
) -> None:
    server = served.server
    saved_models.half_plus(base, 1, offset=1.0)
    served.reload(model("bump", base))
    request = PredictRequest()
    request.model_spec.name = "bump"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array([0.0], np.float32)))
    stop = threading.Event()

    def ask() -> list[tuple[int, float]]:
        seen: list[tuple[int, float]] = []
        while not stop.is_set():
            response = server.predictions.Predict(request, timeout=patient(20))
            answer = (response.model_spec.version.value, response.outputs["y"].float_val[0])
            if not seen or seen[-1] != answer:
                seen.append(answer)
        return seen

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(ask) for _ in range(2)]
        try:
            saved_models.half_plus(base, 2, offset=2.0)
            eventually(lambda: server.states("bump"), {2: "AVAILABLE", 1: "END"})
        finally:
            stop.set()
        for client in clients:
            assert client.result() == [(1, 1.0), (2, 2.0)]
    assert list(server.states("bump")) == [2, 1], "newest first"


def test_staged_and_half_written_versions(served: Served, base: Path) -> None:
    server = served.server
    saved_models.half_plus(base, 1)
    served.reload(model("half", base))
    shutil.copytree(base / "1", base / "2.tmp")
    (base / "notes").mkdir()
    (base / "03").mkdir()  # no saved_model.pb, and a leading zero
    eventually(lambda: server.states("half"), {3: "END", 1: "AVAILABLE"})
    status = server.rest.get("/v1/models/half/versions/3").json()["model_version_status"][0]
    assert status["status"]["error_code"] == "NOT_FOUND"
    assert "Could not find SavedModel .pb" in status["status"]["error_message"]
    assert server.predict("half", ONE) == {"predictions": [2.5]}
    assert "retry 1 of 1" in server.log.read_text()
    # Removed and written again, the version gets another chance.
    (base / "03").rmdir()
    served.reload(model("half", base))  # polls at once
    (base / "2.tmp").rename(base / "3")
    eventually(lambda: server.states("half"), {3: "AVAILABLE", 1: "END"})


def test_a_version_without_variables_loads_and_then_fails(served: Served, base: Path) -> None:
    version = saved_models.half_plus(base, 1)
    (version / "variables" / "variables.index").unlink()
    served.reload(model("novars", base))
    assert served.server.states("novars") == {1: "AVAILABLE"}
    response = served.server.rest.post("/v1/models/novars:predict", content=ONE)
    assert response.status_code == 400
    assert "Could not find variable" in response.json()["error"]


def test_a_broken_graph_fails_the_reload_of_a_new_model(served: Served, base: Path) -> None:
    (base / "1").mkdir(parents=True)
    (base / "1" / "saved_model.pb").write_bytes(b"not a graph")
    with pytest.raises(grpc.RpcError) as caught:
        served.reload(model("broken", base))
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert "1 model(s) did not become available: {{{name: broken version: 1}" in (
        caught.value.details()
    )
    assert served.server.states("broken") == {1: "END"}


def test_a_reload_is_a_full_replacement(served: Served, base: Path) -> None:
    server = served.server
    saved_models.half_plus(base, 1)
    saved_models.half_plus(base, 2, offset=0.0)
    served.reload(model("whole", base, 1, 2))
    eventually(lambda: server.states("whole"), {2: "AVAILABLE", 1: "AVAILABLE"})
    assert server.predict("whole", ONE) == {"predictions": [0.5]}, "highest ready version"
    server.reload()
    eventually(lambda: set(server.states("half_plus_two").values()), {"END"})
    assert "EMPTY CONFIG: unloading all models" in server.log.read_text()
    response = server.rest.post("/v1/models/whole:predict", content=ONE)
    assert response.status_code == 404
    served.reload(model("whole", base, 1))
    assert server.states("whole") == {2: "END", 1: "AVAILABLE"}
    assert server.predict("half_plus_two", ONE) == {"predictions": [2.5]}


def refused(served: Served, *entries: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        served.reload(*entries)
    return caught.value.code(), caught.value.details()


def test_bad_configs_are_refused_and_change_nothing(served: Served, base: Path) -> None:
    saved_models.half_plus(base, 1)
    entry = model("bad", base)
    assert refused(served, entry, entry) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Illegal to list model bad multiple times in config list",
    )
    code, message = refused(served, model("bad", Path("models/bad")))
    assert (code, "absolute path" in message) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    entry.model_platform = "caffe"
    assert refused(served, entry) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Model bad requests unsupported platform caffe",
    )
    assert served.server.states("bad") == {}
    assert served.server.predict("half_plus_two", ONE) == {"predictions": [2.5]}


def test_labels_follow_the_safe_bump(served: Served, base: Path) -> None:
    server = served.server
    for version in (1, 2):
        saved_models.half_plus(base, version, offset=float(version))

    def ask(label: str) -> Any:
        path = f"/v1/models/lab/labels/{label}:predict"
        return server.rest.post(path, content='{"instances": [0]}').json()

    unavailable = (
        grpc.StatusCode.FAILED_PRECONDITION,
        "Request to assign label to version 1 of model lab, "
        "which is not currently available for inference",
    )
    assert refused(served, model("lab", base, 1, labels={"stable": 1})) == unavailable
    served.reload(model("lab", base, 1))
    served.reload(model("lab", base, 1, labels={"stable": 1}))
    assert ask("stable") == {"predictions": [1.0]}
    served.reload(model("lab", base, 1, 2, labels={"stable": 1}))
    eventually(lambda: server.states("lab"), {2: "AVAILABLE", 1: "AVAILABLE"})
    served.reload(model("lab", base, 1, 2, labels={"stable": 1, "canary": 2}))
    assert (ask("stable"), ask("canary")) == ({"predictions": [1.0]}, {"predictions": [2.0]})
    served.reload(model("lab", base, 1, 2, labels={"stable": 2}))
    assert ask("stable") == {"predictions": [2.0]}
    assert ask("canary") == {"error": "Unrecognized servable version label: canary"}


def test_warmup_runs_before_a_version_is_available(served: Served, base: Path) -> None:
    server = served.server
    saved_models.warmup(base, 1, *[saved_models.predict_log()] * 3)
    served.reload(model("warm", base))
    assert "3 warmup records" in server.log.read_text()
    saved_models.warmup(base, 2, saved_models.predict_log("no_such_signature"))
    eventually(lambda: server.states("warm"), {2: "END", 1: "AVAILABLE"})
    status = server.rest.get("/v1/models/warm/versions/2").json()["model_version_status"][0]
    assert status["status"]["error_code"] == "FAILED_PRECONDITION"
    assert "no_such_signature" in status["status"]["error_message"]
    assert server.predict("warm", ONE) == {"predictions": [2.5]}
    saved_models.warmup(base, 3)
    file = base / "3" / saved_models.WARMUP
    file.write_bytes(b"this is no TFRecord at all")
    eventually(lambda: server.states("warm").get(3, ""), "END")


def test_config_file_polling_missing_paths_and_lenient_labels(tmp_path: Path) -> None:
    """One server of its own: these things are decided by flags."""
    good, late = tmp_path / "good", tmp_path / "late"
    saved_models.half_plus(good, 1)
    config = tmp_path / "models.config"

    def write(*entries: Any) -> None:
        text = "".join(f"config {{ {entry} }}\n" for entry in entries)
        staged = tmp_path / "models.config.tmp"
        staged.write_text(f"model_config_list {{ {text} }}")
        staged.replace(config)

    entry = model("good", good, labels={"stable": 1})
    write(model("late", late), entry)
    with running(
        tmp_path,
        f"--model_config_file={config}",
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models",
    ) as server:
        # The missing base path of one model is logged, and the other is served.
        assert "could not read base path" in server.log.read_text()
        assert server.states("late") == {}
        answer = server.rest.post("/v1/models/good/labels/stable:predict", content=ONE)
        assert answer.json() == {"predictions": [2.5]}
        saved_models.half_plus(late, 4, offset=0.0)
        eventually(lambda: server.states("late"), {4: "AVAILABLE"})
        # A broken file changes nothing; the next good one is a full replacement.
        config.write_text("model_config_list { oops")
        eventually(lambda: "Invalid protobuf file" in server.log.read_text(), True)
        assert server.states("late") == {4: "AVAILABLE"}
        write(model("late", late))
        eventually(lambda: server.states("good"), {1: "END"})
        assert server.predict("late", ONE) == {"predictions": [0.5]}
        shutil.rmtree(late / "4")
        eventually(lambda: server.states("late"), {4: "END"})
