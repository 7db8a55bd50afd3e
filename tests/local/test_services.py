"""The embedded services do what the rest of the system relies on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from local.health import wait_until
from pipelines.config import Settings
from tests.services import RedisServer, S3Server


def test_redis_asks_for_the_password(redis_server: RedisServer) -> None:
    with (
        redis.Redis("127.0.0.1", redis_server.port) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_no_secret_is_on_a_command_line(redis_server: RedisServer, s3_server: S3Server) -> None:
    assert "test-redis-password" not in " ".join(redis_server.command.argv)
    assert s3_server.secret_key not in " ".join(s3_server.command.argv)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_redis_keeps_its_data(
    redis_server: RedisServer, redis_client: redis.Redis, end: str
) -> None:
    redis_client.hset("table:1", mapping={"a": b"\x00\xff", "b": b"1"})
    # An acknowledged write is on disk a second later at the latest (appendfsync everysec), and in
    # the kernel's hands, all that the end of a process can ask for, as soon as no fsync of earlier
    # ones is under way.
    assert wait_until(lambda: redis_client.info("persistence")["aof_buffer_length"] == 0, 10)
    getattr(redis_server, end)()
    redis_server.start()
    assert redis_client.hgetall("table:1") == {b"a": b"\x00\xff", b"b": b"1"}


def test_redis_packs_values_of_several_kilobytes(redis_client: redis.Redis) -> None:
    redis_client.hset("packed", mapping={f"{n}": b"x" * 8000 for n in range(32)})
    assert redis_client.object("encoding", "packed") in (b"ziplist", b"listpack")


def test_redis_never_evicts(redis_client: redis.Redis) -> None:
    assert redis_client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_s3_keeps_buckets_and_objects(s3_server: S3Server, bucket: str) -> None:
    s3_server.client().put_object(Bucket=bucket, Key="models/recs/1/a", Body=b"first")
    s3_server.client().put_object(Bucket=bucket, Key="models/recs/2/a", Body=b"second")
    s3_server.client().delete_object(Bucket=bucket, Key="models/recs/2/a")
    s3_server.stop()
    s3_server.start()
    listing = s3_server.client().list_objects_v2(Bucket=bucket)
    assert [found["Key"] for found in listing["Contents"]] == ["models/recs/1/a"]


def test_s3_refuses_a_wrong_secret(s3_server: S3Server, bucket: str) -> None:
    import boto3
    from botocore.exceptions import ClientError

    client = boto3.client(
        "s3",
        endpoint_url=s3_server.endpoint_url,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key="wrong",
        region_name="us-east-1",
    )
    with pytest.raises(ClientError, match=r"403|SignatureDoesNotMatch|AccessDenied"):
        client.list_objects_v2(Bucket=bucket)


def test_settings_are_the_tests_own(
    settings_for: Callable[..., Settings], redis_server: RedisServer, bucket: str
) -> None:
    settings = settings_for(model_server=False, redis_prefix="other")
    assert settings.redis_url.get_secret_value() == redis_server.url
    assert settings.bucket == bucket
    assert settings.redis_prefix == "other"
