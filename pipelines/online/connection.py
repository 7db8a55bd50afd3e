"""The connection to Redis that everything of Ferry's goes through, and its errors in one line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from pipelines.errors import ServiceError
from pipelines.patience import STEP_SECONDS, Patience

P = ParamSpec("P")
R = TypeVar("R")

_TIMEOUT_SECONDS = {Patience.READER: 10.0, Patience.STEP: STEP_SECONDS}
_RETRIES = 3


def redis_address(url: str) -> str:
    """Return ``host:port`` of a Redis URL, without its password."""
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def open_redis(url: str, patience: Patience) -> redis.Redis:
    """Return a client with deadlines on every wait and retries of what may pass.

    A command whose answer was lost is sent again: so repeating it must do no harm.
    """
    seconds = _TIMEOUT_SECONDS[patience]
    return redis.Redis.from_url(
        url,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), _RETRIES),
    )


class HasAddress(Protocol):
    """What :func:`explained` needs of the object whose method it wraps."""

    address: str


H = TypeVar("H", bound=HasAddress)


def explained(method: Callable[Concatenate[H, P], R]) -> Callable[Concatenate[H, P], R]:
    """Turn what redis-py raises into one line with the address."""

    @functools.wraps(method)
    def wrapper(self: H, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except RedisError as error:
            raise ServiceError(f"Redis at {self.address}: {error}") from error

    return cast(Callable[Concatenate[H, P], R], wrapper)
