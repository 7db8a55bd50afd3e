"""Object storage through a real S3 server, and through a proxy that fails."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.config import ReleaseConfig, Settings
from pipelines.errors import ReleaseError, ServiceError
from pipelines.release.context import release_context
from pipelines.release.manifest import FileEntry
from pipelines.release.objects import Credentials, ObjectStore, sums_of
from tests.http_proxy import HttpProxy
from tests.services import S3Server

MIB = 1 << 20


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[HttpProxy]:
    with HttpProxy(s3_server.endpoint_url) as running:
        yield running


@pytest.fixture
def store(
    proxy: HttpProxy, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> ObjectStore:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    credentials = Credentials(s3_server.access_key, s3_server.secret_key, None)
    return ObjectStore(proxy.url, bucket, credentials)


def content(folder: Path, size: int) -> Path:
    path = folder / "file.bin"
    path.write_bytes(random.Random(size).randbytes(size))
    return path


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def upload(store: ObjectStore, path: Path) -> FileEntry:
    return store.upload(path, "some/file.bin", "file.bin")


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 16 * MIB, 40 * MIB])
def test_files_of_any_size_travel(
    store: ObjectStore, proxy: HttpProxy, tmp_path: Path, size: int
) -> None:
    path = content(tmp_path, size)
    entry = upload(store, path)
    assert (entry.size, entry.sha256) == (size, hashlib.sha256(path.read_bytes()).hexdigest())
    assert proxy.asked("GET", "file") == 0, "an ETag that is known needs no reading back"
    assert (proxy.asked("POST", "uploads") > 0) == (size >= 16 * MIB)
    store.download("some/file.bin", tmp_path / "new" / "copy", entry)
    assert (tmp_path / "new" / "copy").read_bytes() == path.read_bytes()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["copy"]


def test_etags_are_amazons(tmp_path: Path) -> None:
    path = content(tmp_path, 40 * MIB)
    data = path.read_bytes()
    parts = [bytes.fromhex(md5(data[i : i + 16 * MIB])) for i in range(0, len(data), 16 * MIB)]
    expected = {md5(data), f"{md5(b''.join(parts))}-3"}
    assert sums_of(path).etags == expected


def test_an_unknown_etag_is_settled_by_reading_back(
    store: ObjectStore, proxy: HttpProxy, tmp_path: Path
) -> None:
    path = content(tmp_path, 3 * MIB)
    proxy.set_headers("HEAD", "file", {"ETag": '"0123456789abcdef0123456789abcdef"'}, times=None)
    proxy.cut("GET", "file", after=MIB)
    assert upload(store, path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert proxy.asked("GET", "file") == 2
    proxy.garble("GET", "file")
    with pytest.raises(ServiceError, match=r"file\.bin: what arrived differs from what was sent"):
        upload(store, path)


def test_what_did_not_arrive_whole_is_an_error(
    store: ObjectStore, proxy: HttpProxy, tmp_path: Path
) -> None:
    proxy.set_headers("HEAD", "file", {"Content-Length": "7"})
    with pytest.raises(ServiceError, match=r"file\.bin: 7 bytes arrived of 100$"):
        upload(store, content(tmp_path, 100))


@pytest.mark.parametrize("size", [1000, 20 * MIB])
def test_passing_failures_pass(
    store: ObjectStore, proxy: HttpProxy, tmp_path: Path, size: int
) -> None:
    path = content(tmp_path, size)
    proxy.fail("PUT", "file", 500)
    proxy.drop("PUT", "file")
    entry = upload(store, path)
    proxy.cut("GET", "file", after=size // 3, times=2)
    proxy.delay("GET", "file", 0.2)
    store.download("some/file.bin", tmp_path / "copy", entry)
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_lasting_failures_are_one_line_and_leave_nothing(
    store: ObjectStore, proxy: HttpProxy, tmp_path: Path
) -> None:
    entry = upload(store, content(tmp_path, 20 * MIB))
    target = tmp_path / "new" / "copy"
    line = rf"^object storage at {re.escape(store.address)}, some/file\.bin: .+"
    proxy.cut("GET", "file", after=100_000, times=None)
    with pytest.raises(ServiceError, match=line) as error:
        store.download("some/file.bin", target, entry)
    assert "\n" not in str(error.value)
    proxy.clear()
    proxy.fail("GET", "file", 503, times=None)
    with pytest.raises(ServiceError, match=line):
        store.download("some/file.bin", target, entry)
    proxy.clear()
    proxy.garble("GET", "file")
    with pytest.raises(ReleaseError, match="SHA-256 differs"):
        store.download("some/file.bin", target, entry)
    assert list(target.parent.iterdir()) == []


def test_a_failed_download_leaves_the_former_file(
    store: ObjectStore, proxy: HttpProxy, tmp_path: Path
) -> None:
    entry = upload(store, content(tmp_path, 1000))
    target = tmp_path / "copy"
    target.write_text("former")
    proxy.garble("GET", "file")
    with pytest.raises(ReleaseError):
        store.download("some/file.bin", target, entry)
    assert target.read_text() == "former"


def test_documents(store: ObjectStore, proxy: HttpProxy) -> None:
    assert store.get_text("nothing.json") is None
    proxy.fail("PUT", "doc")
    store.put_text("doc.json", '{"é": 1}')
    proxy.cut("GET", "doc", after=3, times=2)
    assert store.get_text("doc.json") == '{"é": 1}'
    proxy.cut("GET", "doc", after=3, times=None)
    with pytest.raises(ServiceError, match=r"^object storage at .*doc\.json: "):
        store.get_text("doc.json")


def test_a_document_that_is_garbled_is_an_error(
    store: ObjectStore, proxy: HttpProxy, s3_server: S3Server, bucket: str
) -> None:
    store.put_text("doc.json", '{"some": "words"}')
    proxy.garble("GET", "doc")
    with pytest.raises(ReleaseError, match=r"doc\.json: the document is corrupt: "):
        store.get_text("doc.json")
    assert store.get_text("doc.json") == '{"some": "words"}'
    for spoiled in (b'{"some": "wo', b"\xff\xfe", b""):
        s3_server.client().put_object(Bucket=bucket, Key="other.json", Body=spoiled)
        with pytest.raises(ReleaseError, match=r"other\.json: the document is corrupt: "):
            store.get_text("other.json")


def test_the_server_verifies_documents(s3_server: S3Server, bucket: str) -> None:
    client = s3_server.client()
    with pytest.raises(client.exceptions.ClientError):
        client.put_object(
            Bucket=bucket, Key="doc", Body=b"{}", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg=="
        )


def test_unreachable_object_storage_is_named(settings_for: Callable[..., Settings]) -> None:
    from local.health import free_ports

    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    settings = settings_for(model_server=False, s3_endpoint_url=url)
    with (
        release_context(settings, ReleaseConfig(), "test") as context,
        pytest.raises(ServiceError, match=f"object storage at {url}/"),
    ):
        context.registry.objects.check()
