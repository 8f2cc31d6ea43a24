"""Tests of the store on S3: errors of the server, lost responses, presigned URLs and credentials."""

from __future__ import annotations

import http.server
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from daybreak_server.adapters.blobs import open_blobs
from daybreak_server.local.free_ports import free_port
from daybreak_server.ports.blobs import (
    BlobError,
    BlobExistsError,
    BlobNotFoundError,
    BlobRefusedError,
    BlobUnavailableError,
)

from .conftest import BUCKET, CREDENTIALS, s3_address, s3_client
from .losing_proxy import LosingProxy

if TYPE_CHECKING:
    from .conftest import Place

MIB = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"hello")
    return path


def test_a_presigned_url_needs_no_credentials(s3: Place, source: Path) -> None:
    """Anyone with the URL can read the file. The response has the file's content type and the requested file name."""
    list(s3.blobs.upload("t/x.mp4", source, content_type="video/mp4"))
    url = s3.blobs.url("t/x.mp4", expires_s=900, filename='a "red" circle;é.mp4')
    assert url is not None
    with urllib.request.urlopen(url, timeout=30) as response:
        assert response.read() == b"hello"
        assert response.headers["Content-Type"] == "video/mp4"
        disposition = response.headers["Content-Disposition"]
    assert disposition.startswith('attachment; filename="a _red_ circle__.mp4"; filename*=UTF-8')
    assert "X-Amz-Expires=900" in url


def test_key_files_are_read_for_each_request(tmp_path: Path, versitygw_url: str) -> None:
    """A blob store fails while the key files are missing or wrong, and works once they are correct.

    The store also signs URLs with the current key.
    """
    access, secret = CREDENTIALS.values()
    files = {name: tmp_path / name for name in ("access_key_id_file", "secret_access_key_file")}
    blobs = open_blobs(s3_address(versitygw_url, **files))
    with pytest.raises(BlobRefusedError, match=r"No such file.*access_key_id_file"):
        blobs.probe()
    files["access_key_id_file"].write_text(access)
    files["secret_access_key_file"].write_text("wrong")
    with pytest.raises(BlobRefusedError, match="the secret key is wrong"):
        blobs.probe()
    files["secret_access_key_file"].write_text(f"{secret}\n")
    blobs.probe()
    files["access_key_id_file"].write_text("another")
    assert "X-Amz-Credential=another" in (blobs.url("t/x", expires_s=60) or "")


def test_a_presigned_url_is_valid_for_one_file_only(s3: Place, source: Path) -> None:
    """The signature of one file's URL does not open another file."""
    if s3.kind == "moto":
        pytest.skip("moto does not check signatures")
    list(s3.blobs.upload("t/x", source, content_type="video/mp4"))
    list(s3.blobs.upload("t/y", source, content_type="video/mp4"))
    url = s3.blobs.url("t/x", expires_s=900)
    assert url is not None
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url.replace("/t/x?", "/t/y?"), timeout=30)
    assert refused.value.code == 403
    refused.value.close()


def test_presigned_urls_have_the_public_endpoint(moto_url: str) -> None:
    """Clients get the address at which they can reach the server, or no URL if presigning is off."""
    public = open_blobs(s3_address(moto_url, public_endpoint_url="https://files.example"))
    assert str(public.url("a", expires_s=60)).startswith(f"https://files.example/{BUCKET}/")
    assert open_blobs(s3_address(moto_url, presign=False)).url("a", expires_s=60) is None


def test_a_missing_bucket_is_reported_with_its_name(s3: Place, source: Path) -> None:
    """The error names the bucket and says what to do."""
    url = s3.address.s3.endpoint_url
    assert url is not None
    blobs = open_blobs(s3_address(url, bucket="not-there"))
    with pytest.raises(BlobRefusedError, match=r"not-there.*there is no such bucket; create it"):
        list(blobs.upload("a/x", source, content_type="video/mp4"))
    with pytest.raises(BlobRefusedError, match="there is no such bucket"):
        blobs.probe()


def test_an_unreachable_server_is_a_temporary_error(source: Path) -> None:
    """The error names the address and the setting to check."""
    blobs = open_blobs(s3_address(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(
        BlobUnavailableError, match=r"cannot be reached.*DAYBREAK_ARTIFACTS__S3__ENDPOINT_URL"
    ):
        list(blobs.upload("a/x", source, content_type="video/mp4"))


def test_an_endpoint_that_is_not_a_url_is_refused() -> None:
    """The store refuses the endpoint at once, even if the settings were built without validation."""
    address = s3_address("http://h")
    nonsense = address.model_copy(update={"s3": address.s3.model_copy(update={"endpoint_url": "nonsense"})})
    with pytest.raises(BlobRefusedError, match="ENDPOINT_URL"):
        open_blobs(nonsense)


def test_missing_credentials_are_reported_with_the_variables_to_set(
    moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials, a request fails and the message names the variables."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BlobRefusedError, match="set AWS_ACCESS_KEY_ID"):
        open_blobs(s3_address(moto_url)).probe()


def test_a_wrong_key_and_a_wrong_secret_give_different_errors(
    versitygw_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says whether the secret or the access key is wrong."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(BlobRefusedError, match="the secret key is wrong"):
        open_blobs(s3_address(versitygw_url)).probe()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(BlobRefusedError, match="does not know this access key"):
        open_blobs(s3_address(versitygw_url)).probe()


@pytest.mark.parametrize("size", [100, 9 * MIB])
def test_an_upload_succeeds_although_its_response_is_lost(s3: Place, tmp_path: Path, size: int) -> None:
    """The write takes effect but its response is lost. The retried write recognises its own file and succeeds."""
    path = tmp_path / "data"
    path.write_bytes(b"d" * size)
    server = s3.address.s3.endpoint_url
    assert server is not None
    with LosingProxy(server) as proxy:
        address = s3.address.model_copy(
            update={"s3": s3.address.s3.model_copy(update={"endpoint_url": proxy.url})}
        )
        upload = open_blobs(address).upload("a/x", path, content_type="video/mp4")
        sent = 0
        while sent < size:
            sent = next(upload)
        proxy.lose_next_response()
        assert list(upload) == []
        assert proxy.lost == 1
    assert s3.blobs.stat("a/x").size_bytes == size


def test_a_failed_probe_removes_its_file(s3: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe removes its file even if it cannot read the file."""
    client = s3.blobs._client  # type: ignore[attr-defined]

    def refused(**_: object) -> None:
        raise ClientError(
            {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject"
        )

    monkeypatch.setattr(client, "get_object", refused)
    with pytest.raises(BlobUnavailableError, match="retry later"):
        s3.blobs.probe()
    assert not list(s3.blobs.list(""))


ANSWERS = [
    (403, "AccessDenied", BlobRefusedError, "grant s3:PutObject"),
    (400, "ExpiredToken", BlobRefusedError, "have expired"),
    (403, "RequestTimeTooSkewed", BlobRefusedError, "clock"),
    (400, "AuthorizationHeaderMalformed", BlobRefusedError, "DAYBREAK_ARTIFACTS__S3__REGION"),
    (507, "QuotaExceeded", BlobRefusedError, "raise the quota"),
    (400, "SomethingElse", BlobRefusedError, "SomethingElse: because"),
    (404, "NoSuchUpload", BlobRefusedError, "NoSuchUpload"),
    (412, "PreconditionFailed", BlobExistsError, "never overwritten"),
    (409, "ConditionalRequestConflict", BlobUnavailableError, "retry later"),
    (500, "InternalError", BlobUnavailableError, "retry later"),
    (503, "SlowDown", BlobUnavailableError, "retry later"),
    (429, "TooMany", BlobUnavailableError, "retry later"),
]


class _Answering(http.server.BaseHTTPRequestHandler):
    """Answers HEAD with 404 and PUT with the configured error."""

    protocol_version = "HTTP/1.1"
    status, code = 200, ""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = f"<Error><Code>{self.code}</Code><Message>because</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def answering() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(30)


@pytest.mark.parametrize(("status", "code", "kind", "words"), ANSWERS)
def test_each_error_of_a_server_becomes_an_error_of_the_port(
    answering: str,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    kind: type[BlobError],
    words: str,
) -> None:
    """The error's message says what to do."""
    monkeypatch.setattr(_Answering, "status", status)
    monkeypatch.setattr(_Answering, "code", code)
    with pytest.raises(kind, match=words) as caught:
        list(open_blobs(s3_address(answering)).upload("a/x", source, content_type="video/mp4"))
    assert type(caught.value) is kind


def test_objects_of_others_are_not_part_of_the_store(s3: Place, source: Path) -> None:
    """Objects outside the store's prefix, and objects whose names are invalid keys, are neither listed nor deleted."""
    bucket, _, prefix = s3.address.url.removeprefix("s3://").partition("/")
    client = s3_client(s3.address.s3.endpoint_url)
    try:
        client.put_object(Bucket=bucket, Key=f"{prefix}/t/with space", Body=b"x")
        client.put_object(Bucket=bucket, Key=f"{prefix}-more/t/x", Body=b"x")
        list(s3.blobs.upload("t/x", source, content_type="video/mp4"))
        assert [file.key for file in s3.blobs.list("")] == ["t/x"]
        assert s3.blobs.delete("t") == 1
        client.head_object(Bucket=bucket, Key=f"{prefix}/t/with space")
        client.head_object(Bucket=bucket, Key=f"{prefix}-more/t/x")
    finally:
        client.close()


def test_reading_a_deleted_file_raises_not_found(s3: Place) -> None:
    """A caller may have listed the file before another process deleted it."""
    with pytest.raises(BlobNotFoundError, match="there is no file gone"):
        s3.blobs.open("gone")
