"""A reverse proxy that fails on demand, for tests of what travels over HTTP.

    with HttpProxy(s3_server.endpoint_url) as proxy:
        proxy.fail("GET", r"manifest\\.json$", times=2)
        ...  # a client of proxy.url
        assert proxy.asked("GET", r"manifest\\.json$") == 3

A rule holds for requests whose method and path (with the query) it matches, for the next `times`
of them (None: for all); the first rule that matches is used. Requests are passed on with the Host
that the client sent, so that their signatures hold.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

_NOT_PASSED_ON = {"expect", "connection", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Response:
    """What the server answered, as a rule may change it; `cut_at` bytes of the body are sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut_at: int | None = None


@dataclass
class _Rule:
    method: str
    path: re.Pattern[str]
    times: int | None
    #: Changes the response; None drops the connection without asking the server.
    change: Callable[[Response], Response] | None
    #: An answer that the server is not asked for.
    instead: Response | None = None
    wait_seconds: float = 0.0


@dataclass
class HttpProxy:
    """One proxy on a free port of the loopback interface; its methods add rules."""

    upstream: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, method: str, path: str, status: int = 500, times: int | None = 1) -> None:
        """Answer with an error status, without asking the server."""
        answer = Response(status, {}, b"")
        self._add(_Rule(method, re.compile(path), times, _unchanged, instead=answer))

    def drop(self, method: str, path: str, times: int | None = 1) -> None:
        """Close the connection instead of answering; the server is not asked."""
        self._add(_Rule(method, re.compile(path), times, None))

    def cut(self, method: str, path: str, after: int = 0, times: int | None = 1) -> None:
        """Close the connection after so many bytes of the answer's body."""

        def change(answer: Response) -> Response:
            return Response(answer.status, answer.headers, answer.body, after)

        self._add(_Rule(method, re.compile(path), times, change))

    def delay(self, method: str, path: str, seconds: float, times: int | None = 1) -> None:
        """Ask the server only after so many seconds."""
        self._add(_Rule(method, re.compile(path), times, _unchanged, wait_seconds=seconds))

    def garble(self, method: str, path: str, times: int | None = 1) -> None:
        """Turn over the bits of the middle byte of the answer's body."""

        def change(answer: Response) -> Response:
            body = bytearray(answer.body)
            body[len(body) // 2] ^= 0xFF
            return Response(answer.status, answer.headers, bytes(body))

        self._add(_Rule(method, re.compile(path), times, change))

    def set_headers(
        self, method: str, path: str, headers: Mapping[str, str], times: int | None = 1
    ) -> None:
        """Put these headers in place of the answer's own."""
        names = {name.lower() for name in headers}

        def change(answer: Response) -> Response:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in names}
            return Response(answer.status, {**kept, **headers}, answer.body)

        self._add(_Rule(method, re.compile(path), times, change))

    def clear(self) -> None:
        """Forget the rules and the requests."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def asked(self, method: str, path: str) -> int:
        """Return how many requests came, whatever became of them."""
        return sum(m == method and bool(re.search(path, p)) for m, p in list(self.requests))

    def _add(self, rule: _Rule) -> None:
        with self._lock:
            self._rules.append(rule)

    def _rule_for(self, method: str, path: str) -> _Rule | None:
        with self._lock:
            self.requests.append((method, path))
            for rule in self._rules:
                if rule.method == method and rule.path.search(path) and rule.times != 0:
                    rule.times = rule.times - 1 if rule.times is not None else None
                    return rule
        return None


def _unchanged(answer: Response) -> Response:
    return answer


def _handler(proxy: HttpProxy) -> type[BaseHTTPRequestHandler]:
    upstream = urlsplit(proxy.upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            rule = proxy._rule_for(self.command, self.path)
            if rule is None:
                return self._answer(self._ask(body))
            time.sleep(rule.wait_seconds)
            if rule.change is None:
                return self._hang_up()
            return self._answer(rule.instead or rule.change(self._ask(body)))

        def __getattr__(self, name: str) -> Callable[[], None]:
            # The base class looks for do_GET, do_PUT and so on.
            if name.startswith("do_"):
                return self._serve
            raise AttributeError(name)

        def _ask(self, body: bytes) -> Response:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _NOT_PASSED_ON}
            if body or self.command in {"PUT", "POST"}:
                headers["Content-Length"] = str(len(body))
            connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port)
            try:
                connection.request(self.command, self.path, body or None, headers)
                answer = connection.getresponse()
                return Response(answer.status, dict(answer.getheaders()), answer.read())
            finally:
                connection.close()

        def _answer(self, answer: Response) -> None:
            given = {k.lower(): v for k, v in answer.headers.items()}
            length = given.get("content-length") if self.command == "HEAD" else None
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body[: answer.cut_at])
            if answer.cut_at is not None:
                self._hang_up()

        def _hang_up(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
