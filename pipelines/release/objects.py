"""Object storage through boto3: files with checksums, small JSON documents, listings."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from pipelines.config import Settings
from pipelines.errors import ReleaseError, ServiceError
from pipelines.patience import STEP_SECONDS, Patience
from pipelines.progress import Advance
from pipelines.release.manifest import FileEntry

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

#: Content types of small documents.
JSON, HTML = "application/json", "text/html; charset=utf-8"
_CHUNK = 1 << 20
_PART_BYTES = 16 << 20
_TRANSFER = TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES)
_ATTEMPTS = 4
# To connect and to send, which is the same setting to boto3, and to wait for an answer.
_TIMEOUT_SECONDS = {Patience.READER: (5.0, 60.0), Patience.STEP: (STEP_SECONDS, STEP_SECONDS)}
#: The name under which a document carries its own SHA-256.
_SHA256 = "sha256"
# boto3 retries a request, but not the reading of an answer's body.
_READING = Retrying(
    retry=retry_if_exception_type((IncompleteReadError, ReadTimeoutError, ResponseStreamingError)),
    stop=stop_after_attempt(_ATTEMPTS),
    wait=wait_exponential(0.1),
    reraise=True,
)


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


class FileSums(NamedTuple):
    """A file's size in bytes, its SHA-256 in hex, and the ETags that S3 may give it.

    A server gives the MD5 of the whole, or, for an upload in parts, the MD5 of the parts' MD5s
    with their number behind it (Amazon's way).
    """

    size: int
    sha256: str
    etags: frozenset[str]


def sums_of(path: Path) -> FileSums:
    """Return a file's sums, reading it once, piece by piece."""
    sha256, whole = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    parts: list[bytes] = []
    size = 0
    with path.open("rb") as file:
        while piece := file.read(_PART_BYTES):
            size += len(piece)
            sha256.update(piece)
            whole.update(piece)
            parts.append(hashlib.md5(piece, usedforsecurity=False).digest())
    combined = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    etags = frozenset((whole.hexdigest(), f"{combined}-{len(parts)}"))
    return FileSums(size, sha256.hexdigest(), etags)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex, reading it piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ObjectStore:
    """One bucket. Every method raises ServiceError, naming the endpoint, when it fails."""

    def __init__(
        self,
        endpoint_url: str | None,
        bucket: str,
        credentials: Credentials | None = None,
        region: str | None = None,
        patience: Patience = Patience.READER,
    ) -> None:
        """Open a bucket; without `credentials` or `region`, boto3 looks in its usual places."""
        self.bucket = bucket
        self.address = f"{endpoint_url or 'AWS S3'}/{bucket}"
        connect_seconds, read_seconds = _TIMEOUT_SECONDS[patience]
        config = Config(
            connect_timeout=connect_seconds,
            read_timeout=read_seconds,
            retries={"mode": "standard", "max_attempts": _ATTEMPTS},
            # S3 servers other than Amazon's need not know the newer checksum headers; Ferry
            # verifies its own SHA-256 of everything.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        )
        self._client: S3Client = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            config=config,
            aws_access_key_id=credentials.access_key if credentials else None,
            aws_secret_access_key=credentials.secret_key if credentials else None,
            aws_session_token=credentials.token if credentials else None,
        )

    @classmethod
    def connect(cls, settings: Settings, patience: Patience = Patience.READER) -> ObjectStore:
        """Open the bucket that the settings name."""
        key, secret, token = settings.s3_key_id, settings.s3_key, settings.s3_token
        credentials = None
        if key and secret:
            credentials = Credentials(
                key.get_secret_value(),
                secret.get_secret_value(),
                token.get_secret_value() if token else None,
            )
        return cls(
            settings.s3_endpoint_url, settings.bucket, credentials, settings.s3_region, patience
        )

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
        """Upload a file and verify what arrived; `name` is its name in the manifest.

        By the ETag, where it is one that can be computed here; else (encryption with KMS, another
        part size) by reading the object back.
        """
        sums = sums_of(path)
        with self._explained(key):
            self._client.upload_file(
                str(path), self.bucket, key, Config=_TRANSFER, Callback=advance
            )
            stored = self._client.head_object(Bucket=self.bucket, Key=key)
        if stored["ContentLength"] != sums.size:
            raise ServiceError(
                f"object storage at {self.address}, {key}: {stored['ContentLength']} bytes arrived "
                f"of {sums.size}"
            )
        if stored["ETag"].strip('"') not in sums.etags and self._read_back(key) != sums.sha256:
            raise ServiceError(
                f"object storage at {self.address}, {key}: what arrived differs from what was sent "
                "(SHA-256 differs)"
            )
        return FileEntry(name=name, size=sums.size, sha256=sums.sha256)

    def _read_back(self, key: str) -> str:
        def read() -> str:
            digest = hashlib.sha256()
            body = self._client.get_object(Bucket=self.bucket, Key=key)["Body"]
            for piece in body.iter_chunks(_CHUNK):
                digest.update(piece)
            return digest.hexdigest()

        with self._explained(key):
            return _READING.copy()(read)

    def download(self, key: str, target: Path, entry: FileEntry) -> None:
        """Download a file; `target` appears when its SHA-256 has been verified, or not at all.

        Raises:
            ReleaseError: the content is not what the manifest sealed.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with self._explained(key):
                self._client.download_file(self.bucket, key, str(temporary), Config=_TRANSFER)
            if sha256_of(temporary) != entry.sha256:
                raise ReleaseError(
                    f"object storage at {self.address}, {key}: the content is not what the "
                    "manifest sealed (SHA-256 differs): the version is corrupt"
                )
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def put_text(self, key: str, text: str, content_type: str = JSON) -> None:
        """Write a small document in one request, which the server verifies: whole or absent."""
        body = text.encode()
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        with self._explained(key):
            self._client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=body,
                ContentType=content_type,
                ContentMD5=base64.b64encode(digest).decode(),
                Metadata={_SHA256: hashlib.sha256(body).hexdigest()},
            )

    def get_text(self, key: str, content_type: str = JSON) -> str | None:
        """Return a small document, or None if it does not exist.

        Raises:
            ReleaseError: it is not what :meth:`put_text` wrote, or ought to be JSON and is not.
        """

        def read() -> tuple[bytes, str | None]:
            answer = self._client.get_object(Bucket=self.bucket, Key=key)
            return answer["Body"].read(), answer["Metadata"].get(_SHA256)

        try:
            with self._explained(key):
                body, written = _READING.copy()(read)
        except ServiceError as error:
            if _is_missing(error.__cause__):
                return None
            raise
        try:
            # Not every server keeps the metadata of an object.
            if written and hashlib.sha256(body).hexdigest() != written:
                raise ValueError("SHA-256 differs from when it was written")
            text = body.decode()
            if content_type == JSON:
                json.loads(text)
        except ValueError as error:
            raise ReleaseError(
                f"object storage at {self.address}, {key}: the document is corrupt: {error}"
            ) from error
        return text

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
