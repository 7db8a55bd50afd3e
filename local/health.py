"""Does a service answer?"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import httpx
import redis

from local.home import HOST
from pipelines.patience import Deadline, patient


def port_is_free(port: int) -> bool:
    """Return whether a server could listen on `port` of the loopback interface."""
    with socket.socket() as probe:
        # As servers do: the port of a server that has just stopped counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def redis_answers(port: int, password: str) -> bool:
    """Return whether Redis has loaded its data and accepts the password."""
    with redis.Redis(HOST, port, password=password, socket_timeout=patient(2)) as client:
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def http_answers(url: str) -> bool:
    """Return whether an HTTP server answers at `url`, with whatever status."""
    try:
        httpx.get(url, timeout=patient(2), trust_env=False)
    except httpx.TransportError:
        return False
    return True


def s3_answers(port: int) -> bool:
    """Return whether the S3 server answers (an anonymous request is refused, which will do)."""
    return http_answers(f"http://{HOST}:{port}/")


def model_server_answers(grpc_port: int, rest_port: int) -> bool:
    """Return whether the model server listens on both ports and serves requests."""
    with socket.socket() as probe:
        probe.settimeout(patient(2))
        if probe.connect_ex((HOST, grpc_port)):
            return False
    # The model need not exist: "not found" is an answer.
    return http_answers(f"http://{HOST}:{rest_port}/v1/models/any")


def airflow_answers(port: int) -> bool:
    """Return whether the API server, the scheduler and the DAG processor all report health."""
    try:
        answer = httpx.get(
            f"http://{HOST}:{port}/api/v2/monitor/health", timeout=patient(5), trust_env=False
        )
    except httpx.TransportError:
        return False
    if answer.status_code != httpx.codes.OK:
        return False
    parts = answer.json()
    return all(
        parts[part]["status"] == "healthy"
        for part in ("metadatabase", "scheduler", "dag_processor")
    )


def wait_until(
    answers: Callable[[], bool], seconds: float, is_alive: Callable[[], bool] = lambda: True
) -> bool:
    """Ask repeatedly until `answers`; give up when the process has died, or in the end.

    That is after `seconds` on a quiet machine, later on a crowded one.
    """
    deadline = Deadline(seconds)
    while not deadline.is_over:
        if answers():
            return True
        if not is_alive():
            return False
        time.sleep(0.1)
    return False


def free_ports(count: int) -> tuple[int, ...]:
    """Return `count` different ports that nothing listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return tuple(probe.getsockname()[1] for probe in probes)
    finally:
        for probe in probes:
            probe.close()


def owner_of(port: int) -> str:
    """Return who listens on `port`, as text for a message (empty if that can't be seen)."""
    import psutil

    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            if connection.pid is None or connection.pid == os.getpid():
                break
            try:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.NoSuchProcess:
                break
    return ""
