"""The REST API: predict, classify, regress, status and metadata as JSON (an ASGI application)."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

from local.model_server import inference, json_answers, json_examples, json_tensor, replies
from local.model_server.core import ModelRef, ServerCore
from local.model_server.errors import Code, ServingError, http_status, invalid
from local.model_server.saved_model import SavedModel
from local.model_server.tensors import dtype_name

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# The regular expressions of `model_servers/http_rest_api_util.cc`.
_API = re.compile(r"(?i)/v1/.*")
_PREDICTION = re.compile(
    r"(?i)/v1/models/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?"
    r":(classify|regress|predict)"
)
_STATUS = re.compile(
    r"(?i)/v1/models(?:/([^/:]+))?(?:/versions/([0-9]+)|/labels/([^/:]+))?(?:/(metadata))?"
)


class RestApp:
    """ASGI application in front of a :class:`ServerCore`.

    Args:
        core: what answers.
        threads: requests handled at the same time.
        timeout_seconds: a request that takes longer is answered 504; None for no limit.
    """

    def __init__(self, core: ServerCore, threads: int, timeout_seconds: float | None) -> None:
        self._core = core
        self._pool = ThreadPoolExecutor(threads, "rest")
        self._timeout = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        body = await _read(receive)
        status, answer = await self._handle_in_time(scope, body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def handle(
        self, method: str, path: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> tuple[int, bytes]:
        """Answer a request with (HTTP status, JSON)."""
        try:
            if not _API.fullmatch(path):
                raise ServingError(Code.NOT_FOUND, f"Not found: {path}")
            if headers.get(b"content-encoding") == b"gzip":
                body = _unzip(body)
            return 200, json_answers.encode(self._dispatch(method, path, body))
        except ServingError as error:
            return _error(error)
        except Exception as error:  # noqa: BLE001 - logged, and the client gets INTERNAL
            _log.exception("unexpected error in %s %s", method, path)
            return _error(ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}"))

    async def _handle_in_time(self, scope: Scope, body: bytes) -> tuple[int, bytes]:
        # The raw path, because the real server matches before it decodes %2F and the like.
        path = scope["raw_path"].partition(b"?")[0].decode("latin-1")
        work = asyncio.get_running_loop().run_in_executor(
            self._pool, self.handle, scope["method"], path, dict(scope["headers"]), body
        )
        try:
            return await asyncio.wait_for(work, self._timeout)
        except TimeoutError:
            error = ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for the model")
            return _error(error)

    def _dispatch(self, method: str, path: str, body: bytes) -> str:
        pattern = {"POST": _PREDICTION, "GET": _STATUS}.get(method)
        match = pattern.fullmatch(path) if pattern else None
        if match is None:
            raise invalid(f"Malformed request: {method} {path}")
        name, version, label, verb = match.groups()
        if method == "POST":
            ref = _reference(name, version, label)
            if verb == "predict":
                return self._predict(ref, body)
            if verb == "classify":
                return self._classify(ref, body)
            if verb == "regress":
                return self._regress(ref, body)
            raise invalid(f"Malformed request: {method} {path}")
        if not name:
            raise invalid("Missing model name in request.")
        ref = _reference(name, version, label)
        return self._metadata(ref) if verb else _to_json(replies.status(self._core, ref))

    def _predict(self, ref: ModelRef, body: bytes) -> str:
        # The body is judged before the model is looked up: bad JSON is 400 for any model name.
        document = json_tensor.parse_object(body)
        signature = json_tensor.signature_name(document)
        with self._core.use(ref) as (_, model):
            name = signature or inference.DEFAULT_SIGNATURE
            inputs, row = json_tensor.parse_inputs(document, _input_types(model, name))
            outputs = inference.run_signature(model, name, inputs)
        return json_answers.predictions(outputs, row=row)

    def _classify(self, ref: ModelRef, body: bytes) -> str:
        document = json_tensor.parse_object(body)
        request = ClassificationRequest(input=json_examples.parse_examples(document))
        request.model_spec.signature_name = json_tensor.signature_name(document)
        with self._core.use(ref) as (version, model):
            return json_examples.classifications(inference.classify(model, version, request).result)

    def _regress(self, ref: ModelRef, body: bytes) -> str:
        document = json_tensor.parse_object(body)
        request = RegressionRequest(input=json_examples.parse_examples(document))
        request.model_spec.signature_name = json_tensor.signature_name(document)
        with self._core.use(ref) as (version, model):
            return json_examples.regressions(inference.regress(model, version, request).result)

    def _metadata(self, ref: ModelRef) -> str:
        response = replies.metadata(self._core, ref, [replies.SIGNATURE_DEF])
        signatures = SignatureDefMap()
        response.metadata[replies.SIGNATURE_DEF].Unpack(signatures)
        return (
            f'{{\n"model_spec":{_to_json(response.model_spec, keep_names=True)},\n'
            f'"metadata": {{"signature_def": {_to_json(signatures, keep_names=True)}}}\n}}\n'
        )


async def _read(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


def _unzip(body: bytes) -> bytes:
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise invalid(f"cannot decompress the gzip body: {error}") from error


def _reference(name: str, version: str | None, label: str | None) -> ModelRef:
    if version is not None and int(version) >= 2**63:
        raise invalid(f"Failed to convert version: {version} to numeric.")
    return ModelRef(
        unquote(name),
        version=int(version) if version is not None else None,
        label=unquote(label) if label is not None else None,
    )


def _input_types(model: SavedModel, name: str) -> dict[str, str]:
    """Return the element type of each input of a signature.

    Raises:
        ServingError: INVALID_ARGUMENT for an unknown signature.
    """
    signature = model.signatures.get(name)
    if signature is None:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {name}")
    return {alias: dtype_name(info.dtype) for alias, info in signature.inputs.items()}


def _to_json(message: Message, *, keep_names: bool = False) -> str:
    return str(
        json_format.MessageToJson(
            message,
            always_print_fields_with_no_presence=True,
            preserving_proto_field_name=keep_names,
            indent=1,
        )
    )


def _error(error: ServingError) -> tuple[int, bytes]:
    return http_status(error.code), json.dumps({"error": error.message}).encode()
