"""The REST API of a running server."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from typing import Any

import pytest

from tests.local.model_server.processes import Server

KINDS_ROW = '{"item": 1, "genres": ["drama", "?"]}'


def test_the_lectures_exchange_works_word_for_word(server: Server) -> None:
    url = str(server.rest.base_url.join("/v1/models/half_plus_two:predict"))
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    answer = subprocess.run(
        [curl, "-s", "-d", '{"instances": [1.0, 2.0, 5.0]}', "-X", "POST", url],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == '{"predictions": [2.5, 3.0, 4.5]}'


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("half_plus_two", '{"inputs": [3.0, 4.0]}', {"outputs": [3.5, 4.0]}),
        ("half_plus_two", '{"inputs": {"x": [3]}}', {"outputs": [3.5]}),
        ("half_plus_two", '{"instances": [{"x": 1}, {"x": 2.5}]}', {"predictions": [2.5, 3.25]}),
        ("half_plus_two/versions/1", '{"instances": [0]}', {"predictions": [2.0]}),
        (
            "half_plus_two",
            '{"signature_name": "serving_default", "instances": [-Infinity]}',
            {"predictions": [float("-inf")]},
        ),
        (
            "kinds",
            f'{{"instances": [{KINDS_ROW}]}}',
            {
                "predictions": [
                    {
                        "ids": [10, -1],
                        "known": [True, False],
                        "next": 2,
                        "raw_bytes": {"b64": "ZHJhbWE="},
                    }
                ]
            },
        ),
        (
            "kinds",
            '{"inputs": {"item": [9007199254740993], "genres": [[{"b64": "ZHJhbWE="}, "comedy"]]}}',
            {
                "outputs": {
                    "ids": [[10, 20]],
                    "known": [[True, True]],
                    "next": [9007199254740994],
                    "raw_bytes": [{"b64": "ZHJhbWE="}],
                }
            },
        ),
        (
            "kinds",
            '{"signature_name": "total", "inputs": [[1, 2], [0.1, 4]]}',
            {"outputs": 7.1},
        ),
    ],
)
def test_predict(server: Server, path: str, body: str, expected: Any) -> None:
    response = server.rest.post(f"/v1/models/{path}:predict", content=body)
    assert response.json() == expected
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"


def test_not_a_number_travels_both_ways(server: Server) -> None:
    response = server.rest.post(
        "/v1/models/half_plus_two:predict", content='{"instances": [NaN, Infinity]}'
    )
    assert response.text == '{"predictions": [NaN, Infinity]}'


def test_a_compressed_body_is_read(server: Server) -> None:
    response = server.rest.post(
        "/v1/models/half_plus_two:predict",
        content=gzip.compress(b'{"instances": [1]}'),
        headers={"content-encoding": "gzip"},
    )
    assert response.json() == {"predictions": [2.5]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/v1/models/half_plus_two:predict", "", 400, "The document is empty"),
        ("POST", "/v1/models/half_plus_two:predict", "instances = [1]", 400, "Invalid value."),
        ("POST", "/v1/models/half_plus_two:predict", "[1]", 400, "Is not object"),
        ("POST", "/v1/models/half_plus_two:predict", "{}", 400, "Missing 'inputs' or 'instances'"),
        ("POST", "/v1/models/half_plus_two:predict", '{"instances": []}', 400, "No values in"),
        ("POST", "/v1/models/half_plus_two:predict", '{"instances": 1}', 400, "to be an list"),
        (
            "POST",
            "/v1/models/half_plus_two:predict",
            '{"instances": [1], "inputs": [1]}',
            400,
            "only one of 'inputs' or 'instances'",
        ),
        (
            "POST",
            "/v1/models/half_plus_two:predict",
            '{"instances": ["a"]}',
            400,
            'JSON Value: "a" Type: String is not of expected type: float',
        ),
        (
            "POST",
            "/v1/models/half_plus_two:predict",
            '{"signature_name": "other", "instances": [1]}',
            400,
            'Serving signature name: "other" not found in signature def',
        ),
        (
            "POST",
            "/v1/models/half_plus_two:predict",
            '{"signature_name": 1, "instances": [1]}',
            400,
            "'signature_name' key must be a string value.",
        ),
        (
            "POST",
            "/v1/models/other:predict",
            '{"instances": [1]}',
            404,
            "Servable not found for request: Latest(other)",
        ),
        (
            "POST",
            "/v1/models/half_plus_two/versions/9:predict",
            '{"instances": [1]}',
            404,
            "Servable not found for request: Specific(half_plus_two, 9)",
        ),
        (
            "POST",
            "/v1/models/half_plus_two/labels/nowhere:predict",
            '{"instances": [1]}',
            400,
            "Unrecognized servable version label: nowhere",
        ),
        (
            "POST",
            "/v1/models/half_plus_two/versions/99999999999999999999:predict",
            '{"instances": [1]}',
            400,
            "Failed to convert version: 99999999999999999999 to numeric.",
        ),
        (
            "POST",
            "/v1/models/kinds:predict",
            '{"instances": [1]}',
            400,
            "expecting list of objects as multiple",
        ),
        (
            "POST",
            "/v1/models/kinds:predict",
            '{"instances": [{"item": 1}]}',
            400,
            "keys must be equal to: genres,item",
        ),
        (
            "POST",
            "/v1/models/kinds:predict",
            '{"inputs": {"item": [1]}}',
            400,
            "Missing named input: genres in 'inputs' object.",
        ),
        ("POST", "/v1/models/half_plus_two:regress", "{}", 400, "key 'examples' is expected"),
        ("POST", "/v1/models/half_plus_two", "{}", 400, "Malformed request: POST"),
        ("POST", "/v1/models/half_plus_two:guess", "{}", 400, "Malformed request: POST"),
        ("PUT", "/v1/models/half_plus_two:predict", "{}", 400, "Malformed request: PUT"),
        ("GET", "/v1/models/half_plus_two:predict", "", 400, "Malformed request: GET"),
        ("GET", "/v1/models", "", 400, "Missing model name in request."),
        ("GET", "/v1/models/other", "", 404, "Could not find any versions of model other"),
        (
            "GET",
            "/v1/models/half_plus_two/versions/9",
            "",
            404,
            "Could not find version 9 of model half_plus_two",
        ),
        ("GET", "/v1/models/other/metadata", "", 404, "Servable not found for request"),
        ("GET", "/elsewhere", "", 404, "Not found: /elsewhere"),
    ],
)
def test_errors(
    server: Server, method: str, path: str, body: str, status: int, message: str
) -> None:
    response = server.rest.request(method, path, content=body)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    assert message in response.json()["error"]


def test_an_error_of_the_graph_reaches_the_client(server: Server) -> None:
    response = server.rest.post("/v1/models/half_plus_two:predict", content='{"inputs": 1.0}')
    assert response.status_code == 200
    response = server.rest.post("/v1/models/kinds:predict", content='{"inputs": {"item": 1, '
                                '"genres": ["a"]}}')  # fmt: skip
    assert response.status_code == 400
    assert "genres" in response.text or "slice" in response.text


def test_status(server: Server) -> None:
    expected = {
        "model_version_status": [
            {
                "version": "7",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    assert server.rest.get("/v1/models/kinds").json() == expected
    assert server.rest.get("/v1/models/kinds/versions/7").json() == expected


def test_metadata(server: Server) -> None:
    answer = server.rest.get("/v1/models/half_plus_two/metadata").json()
    assert answer["model_spec"] == {
        "name": "half_plus_two",
        "signature_name": "",
        "version": "1",
    }
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert signature["inputs"]["x"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]


def test_classify_and_regress(server: Server) -> None:
    response = server.rest.post(
        "/v1/models/examples:classify",
        content='{"signature_name": "classify", "examples": [{"x": 20.0}, {"x": [10.0]}]}',
    )
    assert response.text == '{"results": [[["half", 12.0]], [["half", 7.0]]]}'
    response = server.rest.post(
        "/v1/models/examples/versions/1:regress",
        content='{"signature_name": "regress", "context": {"c": 3.0}, "examples": [{"x": 80.0}]}',
    )
    assert response.text == '{"results": [43.0]}'
    response = server.rest.post(
        "/v1/models/examples:regress",
        content='{"signature_name": "classify", "examples": [{"x": 1.0}]}',
    )
    assert response.status_code == 400
    assert "Expected regression signature method_name" in response.json()["error"]
