"""Ferry's endpoints and secrets, as Airflow's connections hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pipelines.errors import ConfigError


class Connection(Protocol):
    """What is read of a connection; tasks and the API server have a class of their own each."""

    @property
    def login(self) -> str | None:
        """The user, or the key's id."""

    @property
    def password(self) -> str | None:
        """The password, or the secret key."""

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The fields of the extra."""

    def get_uri(self) -> str:
        """Return the connection as a URI."""


def connection_environment(connection: Callable[[str], Connection]) -> dict[str, str]:
    """Return the environment variables that the connections stand for, by what finds them.

    ``ferry_redis``: its URI. ``ferry_s3``: key id and secret as login and password; endpoint_url,
    bucket and region_name in the extra. ``ferry_tf_serving``: replicas and model_dir in the extra.

    Raises:
        ConfigError: a connection lacks a field.
    """
    redis = connection("ferry_redis")
    s3 = connection("ferry_s3")
    serving = connection("ferry_tf_serving")
    environment = {
        "FERRY_REDIS_URL": redis.get_uri(),
        "FERRY_S3_ENDPOINT_URL": s3.extra_dejson.get("endpoint_url"),
        "FERRY_BUCKET": s3.extra_dejson.get("bucket"),
        "AWS_ACCESS_KEY_ID": s3.login,
        "AWS_SECRET_ACCESS_KEY": s3.password,
        "AWS_DEFAULT_REGION": s3.extra_dejson.get("region_name", "us-east-1"),
        "FERRY_TF_SERVING": serving.extra_dejson.get("replicas"),
        "FERRY_MODEL_DIR": serving.extra_dejson.get("model_dir"),
    }
    # Without an endpoint it is Amazon's S3, without keys the machine's own role: both are sound.
    optional = {"FERRY_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    missing = [name for name, value in environment.items() if not value and name not in optional]
    if missing:
        raise ConfigError(
            f"Airflow's connections ferry_s3 and ferry_tf_serving do not give {', '.join(missing)}"
        )
    return {name: value for name, value in environment.items() if value}
