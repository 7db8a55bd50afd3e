"""Object storage through boto3: files with checksums, small JSON documents, listings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipelines.config import Settings
from pipelines.errors import ReleaseError, ServiceError
from pipelines.progress import Advance
from pipelines.release.manifest import FileEntry

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_CHUNK = 1 << 20
_TRANSFER = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=16 << 20)


class Credentials(NamedTuple):
    """AWS credentials that can be handed to another process, a Spark executor say."""

    access_key: str
    secret_key: str
    token: str | None

    @classmethod
    def current(cls) -> Credentials | None:
        """Return what boto3 finds in this process's environment, or None."""
        found = boto3.Session().get_credentials()
        if found is None:
            return None
        frozen = found.get_frozen_credentials()
        return cls(frozen.access_key or "", frozen.secret_key or "", frozen.token)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex, reading it piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class ObjectStore:
    """One bucket. Every method raises ServiceError, naming the endpoint, when it fails."""

    def __init__(
        self, endpoint_url: str | None, bucket: str, credentials: Credentials | None = None
    ) -> None:
        """Open a bucket; without `credentials`, boto3 looks in its usual places."""
        self.bucket = bucket
        self.address = f"{endpoint_url or 'AWS S3'}/{bucket}"
        config = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 4},
            # S3 servers other than Amazon's need not know the newer checksum headers; Ferry
            # verifies its own SHA-256 of everything.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        )
        self._client: S3Client = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            config=config,
            aws_access_key_id=credentials.access_key if credentials else None,
            aws_secret_access_key=credentials.secret_key if credentials else None,
            aws_session_token=credentials.token if credentials else None,
        )

    @classmethod
    def connect(cls, settings: Settings) -> ObjectStore:
        """Open the bucket that the settings name."""
        return cls(settings.s3_endpoint_url, settings.bucket)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, boto3.exceptions.Boto3Error) as error:
            raise ServiceError(f"object storage at {self.address}, {key}: {error}") from error

    def check(self) -> None:
        """Check that the bucket answers."""
        with self._explained("(bucket)"):
            self._client.head_bucket(Bucket=self.bucket)

    def upload(self, path: Path, key: str, name: str, advance: Advance | None = None) -> FileEntry:
        """Upload a file and check that all of it arrived; `name` is its name in the manifest."""
        entry = FileEntry(name=name, size=path.stat().st_size, sha256=sha256_of(path))
        with self._explained(key):
            self._client.upload_file(
                str(path), self.bucket, key, Config=_TRANSFER, Callback=advance
            )
            stored = self._client.head_object(Bucket=self.bucket, Key=key)["ContentLength"]
        if stored != entry.size:
            raise ServiceError(
                f"object storage at {self.address}, {key}: {stored} bytes arrived of {entry.size}"
            )
        return entry

    def download(self, key: str, target: Path, entry: FileEntry) -> None:
        """Download a file and verify its SHA-256; nothing is left behind if it differs.

        Raises:
            ReleaseError: the content is not what the manifest sealed.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._explained(key):
            self._client.download_file(self.bucket, key, str(target), Config=_TRANSFER)
        if sha256_of(target) != entry.sha256:
            target.unlink()
            raise ReleaseError(
                f"object storage at {self.address}, {key}: the content is not what the manifest "
                "sealed (SHA-256 differs): the version is corrupt"
            )

    def put_text(self, key: str, text: str) -> None:
        """Write a small document in one request: it is whole or absent."""
        with self._explained(key):
            self._client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=text.encode(),
                ContentType="application/json",
            )

    def get_text(self, key: str) -> str | None:
        """Return a small document, or None if it does not exist."""
        try:
            with self._explained(key):
                return self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read().decode()
        except ServiceError as error:
            if _is_missing(error.__cause__):
                return None
            raise

    def delete(self, key: str) -> None:
        """Delete one object; one that does not exist is no error."""
        with self._explained(key):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def list_keys(self, prefix: str) -> Iterator[str]:
        """Yield all keys that start with `prefix`, in order."""
        with self._explained(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix
            ):
                for item in page.get("Contents", []):
                    yield item["Key"]

    def list_folders(self, prefix: str) -> list[str]:
        """Return the names one level below `prefix` (which ends with a slash)."""
        names = []
        with self._explained(prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/"
            ):
                names += [
                    item["Prefix"].removeprefix(prefix).rstrip("/")
                    for item in page.get("CommonPrefixes", [])
                ]
        return names


def _is_missing(error: BaseException | None) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] in {
        "NoSuchKey",
        "404",
    }
