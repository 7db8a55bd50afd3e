"""The secrets of the embedded services: random, generated once, readable by their owner only."""

from __future__ import annotations

import base64
import secrets

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from local.home import Home, write_private
from pipelines.errors import ConfigError


def _random() -> str:
    return secrets.token_urlsafe(24)


class Secrets(BaseModel):
    """All secrets of one home."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    redis_password: str = Field(default_factory=_random, min_length=16, repr=False)
    s3_access_key: str = Field(default_factory=lambda: secrets.token_hex(10), min_length=16)
    s3_secret_key: str = Field(default_factory=_random, min_length=16, repr=False)
    airflow_password: str = Field(default_factory=_random, min_length=16, repr=False)
    airflow_api_key: str = Field(default_factory=_random, min_length=16, repr=False)
    airflow_jwt_key: str = Field(
        # HMAC-SHA512 wants a key as long as its digest.
        default_factory=lambda: secrets.token_urlsafe(64),
        min_length=64,
        repr=False,
    )
    airflow_fernet_key: str = Field(
        default_factory=lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        min_length=44,
        repr=False,
    )


def load_secrets(home: Home) -> Secrets:
    """Return the secrets of `home`; those that do not exist yet are generated and kept.

    Raises:
        ConfigError: the file was damaged.
    """
    try:
        text = home.secrets_file.read_text()
    except FileNotFoundError:
        text = "{}"
    try:
        known = Secrets.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(
            f"{home.secrets_file} is damaged: remove it together with {home.redis} and start again"
        ) from error
    content = known.model_dump_json(indent=2)
    if content != text:
        write_private(home.secrets_file, content)
    return known
