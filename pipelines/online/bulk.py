"""Many commands over one connection, at the speed of Redis rather than of redis-py.

redis-py looks at every argument by itself, which costs several microseconds an entity. Here the
bytes of a whole bucket's command are joined at once. The connection is one of redis-py's pool, so
that authentication, TLS and retries of connecting are redis-py's, and so is the parser of replies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from pipelines.online.buckets import Bucket

# What is sent before the replies of what was sent before it are read: two such chunks are under
# way at most. The server works on one while the other is made; and as what fits the sockets'
# buffers one way (the commands of reads, the replies to writes) is small, neither side, nor a
# proxy between them, can be stuck with both buffers full.
_CHUNK_BYTES = 256 << 10
_CHUNK_REPLIES = 256

_MULTI = b"*1\r\n$5\r\nMULTI\r\n"
_EXEC = b"*1\r\n$4\r\nEXEC\r\n"


class Encoded(NamedTuple):
    """Commands in RESP, and how many replies they will have."""

    data: bytes
    replies: int = 1


def command(*arguments: bytes) -> Encoded:
    """Return one command in RESP."""
    parts = [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return Encoded(b"*%d\r\n%b" % (len(parts), b"".join(parts)))


def set_bucket(key: bytes, bucket: Bucket) -> Encoded:
    """Return the HSET of a bucket's rows in RESP."""
    rows = [
        b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(entity_id), entity_id, len(value), value)
        for entity_id, value in zip(bucket.ids, bucket.values, strict=True)
    ]
    head = b"*%d\r\n$4\r\nHSET\r\n$%d\r\n%b\r\n" % (2 + 2 * len(rows), len(key), key)
    return Encoded(b"".join([head, *rows]))


def replace_bucket(key: bytes, bucket: Bucket) -> Encoded:
    """Return what puts exactly these rows in a bucket's place, without a gap for its readers."""
    return Encoded(_MULTI + command(b"DEL", key).data + set_bucket(key, bucket).data + _EXEC, 4)


def execute(client: redis.Redis, commands: Sequence[Encoded]) -> list[Any]:
    """Send commands and return all replies, in order.

    Raises:
        redis.RedisError: as :func:`stream`.
    """
    return stream(client, lambda: commands, keep=True)


def stream(
    client: redis.Redis, commands: Callable[[], Iterable[Encoded]], *, keep: bool = False
) -> list[Any]:
    """Send commands while they are made, and look at the reply to each.

    `commands` is called once for each attempt, as many as the client's own setting allows when
    the connection fails: so repeating the commands must do no harm. At most two chunks of commands
    are in memory; the replies are returned if they are to be kept.

    Raises:
        redis.RedisError: the connection failed, or Redis refused a command. The connection is
            dropped then: replies that nobody read may still be in it.
    """
    pool = client.connection_pool

    def attempt() -> list[Any]:
        connection: Any = pool.get_connection()
        try:
            return _exchange(connection, commands(), keep)
        except BaseException:
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    retry = client.get_retry() or Retry(NoBackoff(), 0)
    return retry.call_with_retry(attempt, lambda _: None)


def _exchange(connection: Any, commands: Iterable[Encoded], keep: bool) -> list[Any]:
    kept: list[Any] = []
    awaited = 0
    for data, replies in _chunks(commands):
        connection.send_packed_command([data], check_health=False)
        _read(connection, awaited, kept if keep else None)
        awaited = replies
    _read(connection, awaited, kept if keep else None)
    return kept


def _chunks(commands: Iterable[Encoded]) -> Iterator[Encoded]:
    chunk: list[bytes] = []
    size = replies = 0
    for encoded in commands:
        chunk.append(encoded.data)
        size += len(encoded.data)
        replies += encoded.replies
        if size >= _CHUNK_BYTES or replies >= _CHUNK_REPLIES:
            yield Encoded(b"".join(chunk), replies)
            chunk, size, replies = [], 0, 0
    if chunk:
        yield Encoded(b"".join(chunk), replies)


def _read(connection: Any, count: int, kept: list[Any] | None) -> None:
    for _ in range(count):
        reply = connection.read_response()
        # An error is raised by itself, but not one inside the answer to EXEC.
        if isinstance(reply, list):
            for inner in reply:
                if isinstance(inner, ResponseError):
                    raise inner
        if kept is not None:
            kept.append(reply)
