"""One server process: ports, threads, signals, start and stop."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.model_server.errors import ServingError, StartupError
from local.model_server.flags import Flags

if TYPE_CHECKING:
    from local.model_server.core import ServerCore
    from local.model_server.sources import VersionPoller

_log = logging.getLogger(__name__)
_HOST = "127.0.0.1"
_STOP_SECONDS = 1.0


def run(flags: Flags) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code.

    Raises:
        StartupError: a port in use, or a config that the server cannot start with.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    _check_port(flags.port, "--port")
    rest_socket = _bind(flags.rest_api_port) if flags.rest_api_port else None
    # Nothing is open yet that would need an orderly stop, and the import takes seconds.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    _import_tensorflow()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _serve(flags, rest_socket, stop)
    logging.shutdown()
    # A load that is under way cannot be interrupted, and Python would wait for its thread.
    os._exit(0)


def _serve(flags: Flags, rest_socket: socket.socket | None, stop: threading.Event) -> None:
    from local.model_server import config
    from local.model_server.core import ConfigFilePoller
    from local.model_server.grpc_services import start_server

    core, poller = _build(flags)
    file = flags.model_config_file
    try:
        initial = (
            config.read_file(file)
            if file
            else config.single_model(flags.model_name, flags.model_base_path)
        )
        core.reload(initial, wait=False)
    except ServingError as error:
        raise StartupError(f"Failed to start server. Error: {error}") from error
    poller.start()
    _wait_for_first_loads(core, stop)
    if stop.is_set():
        return
    addresses = [f"{_HOST}:{flags.port}"]
    if flags.grpc_socket_path:
        addresses.append(f"unix:{flags.grpc_socket_path}")
    grpc_server = start_server(
        core, addresses, flags.grpc_max_threads, _channel_arguments(flags.grpc_channel_arguments)
    )
    _log.info("Running gRPC ModelServer at %s ...", ", ".join(addresses))
    rest_server = _start_rest(core, flags, rest_socket) if rest_socket is not None else None
    files = ConfigFilePoller(core, file, flags.model_config_file_poll_wait_seconds)
    if file:
        files.start()
    stop.wait()
    _log.info("stopping")
    files.close()
    core.close()
    stopped = grpc_server.stop(_STOP_SECONDS)
    if rest_server is not None:
        rest_server.stop()
    stopped.wait(_STOP_SECONDS)


def _build(flags: Flags) -> tuple[ServerCore, VersionPoller]:
    from local.model_server import warmup
    from local.model_server.core import ServerCore
    from local.model_server.manager import Manager
    from local.model_server.saved_model import LoadOptions, SavedModel
    from local.model_server.sources import VersionPoller

    both = flags.tensorflow_session_parallelism or min(2, len(os.sched_getaffinity(0)))
    options = LoadOptions(
        tags=frozenset(flags.saved_model_tags.split(",")),
        intra_op_threads=flags.tensorflow_intra_op_parallelism or both,
        inter_op_threads=flags.tensorflow_inter_op_parallelism or both,
    )

    def load(model: str, version: int, path: Path) -> SavedModel:
        loaded = SavedModel(path, options)
        try:
            if flags.enable_model_warmup:
                warmup.replay(loaded, version, path, flags.num_request_iterations_for_warmup)
        except ServingError:
            loaded.close()
            raise
        return loaded

    manager = Manager(
        load,
        retries=flags.max_num_load_retries,
        retry_seconds=flags.load_retry_interval_micros / 1e6,
        load_threads=flags.num_load_threads,
        unload_threads=flags.num_unload_threads,
    )
    poller = VersionPoller(manager.set_aspired, flags.file_system_poll_wait_seconds)
    allow = flags.allow_version_labels_for_unavailable_models
    return ServerCore(manager, poller, allow_labels_for_unavailable=allow), poller


def _wait_for_first_loads(core: ServerCore, stop: threading.Event) -> None:
    """Open the ports when the models are there, but do not let a broken one hold up the rest."""
    tried = threading.Event()

    def wait() -> None:
        core.wait_until_tried()
        tried.set()

    threading.Thread(target=wait, name="first-loads", daemon=True).start()
    while not tried.wait(0.05) and not stop.is_set():
        pass


class _RestServer:
    """uvicorn in a thread of its own."""

    def __init__(self, app: Any, sock: socket.socket) -> None:
        import uvicorn

        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([sock],), name="rest", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Let running requests finish for a moment, then close."""
        self._server.should_exit = True
        self._thread.join(2 * _STOP_SECONDS)


def _start_rest(core: ServerCore, flags: Flags, sock: socket.socket) -> _RestServer:
    from local.model_server.rest import RestApp

    timeout = flags.rest_api_timeout_in_ms / 1000 if flags.rest_api_timeout_in_ms > 0 else None
    try:
        sock.listen()
    except OSError as error:
        raise _in_use(flags.rest_api_port, "--rest_api_port") from error
    server = _RestServer(RestApp(core, flags.rest_api_num_threads, timeout), sock)
    _log.info("Exporting HTTP/REST API at:%s:%d ...", _HOST, flags.rest_api_port)
    return server


def _bind(port: int, flag: str = "--rest_api_port") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((_HOST, port))
    except OSError as error:
        sock.close()
        raise _in_use(port, flag) from error
    return sock


def _check_port(port: int, flag: str) -> None:
    """Find a port in use now rather than after seconds of imports."""
    _bind(port, flag).close()


def _in_use(port: int, flag: str) -> StartupError:
    return StartupError(f"port {port} ({flag}) is in use or not permitted")


def _channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """Parse ``key=value,key=value``; numbers become numbers."""
    arguments: list[tuple[str, int | str]] = []
    for pair in filter(None, text.split(",")):
        key, given, value = pair.partition("=")
        if not given:
            raise StartupError(f"--grpc_channel_arguments: {pair!r} is not key=value")
        arguments.append((key, int(value) if value.lstrip("-").isdigit() else value))
    return arguments


def _import_tensorflow() -> None:
    """Import TensorFlow quietly and without Keras, which a graph does not need.

    `TF_USE_LEGACY_KERAS` makes `import tensorflow` look for the old Keras, which is not
    installed, instead of importing the new one with pandas and h5py behind it: 3 s and 65 MB
    for each process.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    with _stderr_held():
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")
    # TensorFlow's 250,000 objects live for ever; without this each collection walks them
    # all, and a request that meets the one after an unload waits 0.15 s.
    gc.freeze()


@contextmanager
def _stderr_held() -> Iterator[None]:
    """Keep what is written to stderr, and show it only if the block fails.

    The C++ side of TensorFlow reports missing GPU drivers before its log level takes effect.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        real = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(real, held.read())
            raise
        finally:
            os.dup2(real, 2)
            os.close(real)
