"""The canonical status codes, and how gRPC and HTTP show them."""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """Canonical status codes, numbered as in ``google/rpc/code.proto`` (gRPC, TensorFlow)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# The table of TensorFlow Serving's `model_servers/http_server.cc`.
_HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}


def http_status(code: Code) -> int:
    """Return the HTTP status TensorFlow Serving answers for ``code`` (500 where it names none)."""
    return _HTTP_STATUS.get(code, 500)


class ServingError(Exception):
    """A request or a load that failed, with the status code the client is to see."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """Return ``CODE: message``, as TensorFlow prints a status."""
        return f"{self.code.name}: {self.message}"


def invalid(message: str) -> ServingError:
    """Return the error of a malformed request (by far the commonest one)."""
    return ServingError(Code.INVALID_ARGUMENT, message)


class StartupError(Exception):
    """The server cannot start; the message is the one line the user is to read."""
