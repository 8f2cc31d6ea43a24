"""The blob store on S3 or a compatible server."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from daybreak_server.adapters.blobs.blob_keys import checked_type, prefix_segments, segments, type_by_name
from daybreak_server.adapters.blobs.s3_credentials import session_with
from daybreak_server.adapters.blobs.s3_errors import code_of, is_conflict, status_of, translate
from daybreak_server.domain.artifact_names import attachment
from daybreak_server.ports.blobs import (
    BlobError,
    BlobExistsError,
    BlobKeyError,
    BlobNotFoundError,
    BlobStat,
    BlobUnavailableError,
    probe_key,
)

PART_BYTES: Final = 8 << 20
"""S3 requires at least 5 MiB for each part but the last. A file below ``PART_BYTES`` is uploaded by one PutObject."""
_MAX_PARTS: Final = 10_000
_PROBE_TRIES: Final = 5
_MAX_URL_S: Final = 7 * 86400
_NONCE: Final = "daybreak-upload"
"""The metadata key of the upload's random id. If a response is lost, the upload recognises its own file by the id."""

_Result = TypeVar("_Result")


class S3Blobs:
    """Files below ``s3://bucket/prefix``. Threads may share an instance, and several processes may use the same files.

    A file is written by one PutObject, or by a multipart upload, whose completion makes the file visible. Both ways
    send SHA-256 checksums, and the header ``If-None-Match: *``, so that no file is ever overwritten. On a server that
    ignores this header, a check before the upload finds most existing files. A server that does not support checksums
    gets none.
    """

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str = "",
        endpoint_url: str | None = None,
        region: str | None = None,
        path_style: bool = False,
        public_endpoint_url: str | None = None,
        presign: bool = True,
        key_files: tuple[Path, Path] | None = None,
    ) -> None:
        """Credentials come from ``key_files`` (access key and secret), or from the usual AWS variables, files or
        roles. The constructor does not need them; the first call does.

        :raises BlobError: when the other settings cannot be used, such as an endpoint that is not a URL.
        """
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._presign = presign
        self._sums = True
        self._where = f"s3://{bucket} at {endpoint_url or 'AWS'}"
        with self._translated(""):
            client = client_factory(
                region=region,
                path_style=path_style,
                other_server=endpoint_url is not None,
                key_files=key_files,
            )
            self._client = client(endpoint_url)
            self._public = client(public_endpoint_url) if public_endpoint_url else self._client

    def upload(self, key: str, source: Path, *, content_type: str) -> Iterator[int]:
        """See :class:`~daybreak_server.ports.blobs.Blobs`. A file of 8 MiB or more is sent in parts."""
        segments(key)
        nonce = secrets.token_hex(16)
        request = {
            **self._at(key),
            "ContentType": checked_type(content_type),
            "Metadata": {_NONCE: nonce},
        }
        with source.open("rb") as reader, self._translated(key):
            size = os.fstat(reader.fileno()).st_size
            # Some servers ignore If-None-Match. This check helps there, and it finds a taken key before bytes are sent.
            with suppress(ClientError):
                self._client.head_object(**self._at(key))
                raise BlobExistsError(f"{key} already exists, and files are never overwritten")
            send = self._put if size < PART_BYTES else self._multipart
            yield from send(request, reader, key=key, nonce=nonce, size=size)

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """See :class:`~daybreak_server.ports.blobs.Blobs`."""
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"start and length must not be negative: {start}, {length}")
        segments(key)
        if length == 0:
            self.stat(key)
            return io.BytesIO()
        last = "" if length is None else str(start + length - 1)
        byte_range = {"Range": f"bytes={start}-{last}"} if start or last else {}
        with self._translated(key):
            try:
                body = self._client.get_object(**self._at(key), **byte_range)["Body"]
            except ClientError as exc:
                if byte_range and status_of(exc) == 416:
                    return io.BytesIO()
                raise
        raw = _Body(body, lambda: self._translated(key))
        return io.BufferedReader(cast(io.RawIOBase, raw), buffer_size=1 << 20)

    def stat(self, key: str) -> BlobStat:
        """See :class:`~daybreak_server.ports.blobs.Blobs`."""
        segments(key)
        with self._translated(key):
            head = self._client.head_object(**self._at(key))
            return BlobStat(key=key, size_bytes=head["ContentLength"], content_type=head["ContentType"])

    def url(self, key: str, *, expires_s: float, filename: str | None = None) -> str | None:
        """A presigned URL, valid for at most 7 days. A browser saves the file as ``filename``, if given.

        ``None`` if presigning is off. Does not check that the file exists.
        """
        segments(key)
        if not self._presign:
            return None
        params = self._at(key)
        if filename is not None:
            params["ResponseContentDisposition"] = attachment(filename)
        with self._translated(key):
            return str(
                self._public.generate_presigned_url(
                    "get_object", Params=params, ExpiresIn=max(1, min(int(expires_s), _MAX_URL_S))
                )
            )

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """See :class:`~daybreak_server.ports.blobs.Blobs`."""
        parts = prefix_segments(prefix)
        if parts:
            with suppress(BlobNotFoundError):
                file = self.stat("/".join(parts))
                yield BlobStat(key=file.key, size_bytes=file.size_bytes, content_type=type_by_name(file.key))
        below = "".join(f"{part}/" for part in parts)
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + below):
                for found in page.get("Contents", ()):
                    with suppress(BlobKeyError):  # not a file of this store
                        key = "/".join(segments(found["Key"].removeprefix(self._prefix)))
                        yield BlobStat(key=key, size_bytes=found["Size"], content_type=type_by_name(key))

    def delete(self, prefix: str) -> int:
        """See :class:`~daybreak_server.ports.blobs.Blobs`."""
        if not prefix_segments(prefix):
            raise BlobKeyError("the prefix is empty; deleting the whole store is not allowed")
        removed = 0
        keys = [file.key for file in self.list(prefix)]
        with self._translated(prefix):
            self._abort_below(prefix.removesuffix("/"))
            for first in range(0, len(keys), 1000):
                batch = [{"Key": self._prefix + key} for key in keys[first : first + 1000]]
                response = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": batch, "Quiet": True}
                )
                for error in response.get("Errors", ()):
                    raise ClientError({"Error": error}, "DeleteObjects")
                removed += len(batch)
        return removed

    def probe(self) -> None:
        """Write, read, list and delete a small file. :raises BlobError: with a message that says what to do."""
        with self._translated(""):
            place = self._write_probe()
            try:
                content = self._client.get_object(**place)["Body"].read()
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=place["Key"], MaxKeys=1)
            except (ClientError, BotoCoreError):
                with suppress(ClientError, BotoCoreError):  # the write may have succeeded
                    self._client.delete_object(**place)
                raise
            self._client.delete_object(**place)
        if content != b"probe":
            raise BlobUnavailableError(f"{self._where} does not return what was written to it")

    def _write_probe(self) -> dict[str, str]:
        """Write a probe and return its bucket and key.

        A server that keeps objects as files may answer 409 while it removes the folder of another probe. So after a
        conflict, this method retries with another key.
        """
        for remaining in range(_PROBE_TRIES - 1, -1, -1):
            place = {"Bucket": self._bucket, "Key": f"{self._prefix}{probe_key()}"}
            try:
                self._client.put_object(**place, Body=b"probe")
                break
            except (ClientError, BotoCoreError) as exc:
                with suppress(ClientError, BotoCoreError):  # the write may have succeeded
                    self._client.delete_object(**place)
                if not remaining or not isinstance(exc, ClientError) or status_of(exc) != HTTPStatus.CONFLICT:
                    raise
        return place

    def _put(
        self, request: Mapping[str, Any], reader: BinaryIO, *, key: str, nonce: str, size: int
    ) -> Iterator[int]:
        data = reader.read()
        yield len(data)  # before the file exists: a caller that closes the generator here leaves no file
        self._visible(
            lambda: self._without_refused_sums(
                lambda: self._client.put_object(**request, Body=data, IfNoneMatch="*", **self._sum(data))
            ),
            key=key,
            nonce=nonce,
        )

    def _multipart(
        self, request: Mapping[str, Any], reader: BinaryIO, *, key: str, nonce: str, size: int
    ) -> Iterator[int]:
        started = self._without_refused_sums(
            lambda: self._client.create_multipart_upload(
                **request, **({"ChecksumAlgorithm": "SHA256"} if self._sums else {})
            )
        )
        upload = {**self._at(key), "UploadId": started["UploadId"]}
        try:
            part_bytes = max(PART_BYTES, -(-size // _MAX_PARTS))
            parts: list[dict[str, Any]] = []
            sent = 0
            while data := reader.read(part_bytes):
                number = len(parts) + 1
                response = self._client.upload_part(**upload, PartNumber=number, Body=data, **self._sum(data))
                part_ids = {name: response[name] for name in ("ETag", "ChecksumSHA256") if name in response}
                parts.append({"PartNumber": number, **part_ids})
                sent += len(data)
                yield sent
            self._visible(
                lambda: self._client.complete_multipart_upload(
                    **upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                ),
                key=key,
                nonce=nonce,
            )
        except BaseException:
            with suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(**upload)
            raise

    def _visible(self, publish: Callable[[], object], *, key: str, nonce: str) -> None:
        """Make a file visible. Ignores an error if the file is visible after all, and only the response was lost."""
        try:
            publish()
        except (ClientError, BotoCoreError) as exc:
            with suppress(ClientError, BotoCoreError):
                if self._client.head_object(**self._at(key))["Metadata"].get(_NONCE) == nonce:
                    return
            if isinstance(exc, ClientError) and is_conflict(exc):
                raise BlobExistsError(f"{key} already exists, and files are never overwritten") from exc
            raise

    def _without_refused_sums(self, call: Callable[[], _Result]) -> _Result:
        """Make a call, and repeat it without SHA-256 checksums if the server does not support them."""
        try:
            return call()
        except ClientError as exc:
            if not self._sums or code_of(exc) not in {"NotImplemented", "XNotImplemented"}:
                raise
        self._sums = False
        return call()

    def _sum(self, data: bytes) -> dict[str, str]:
        if not self._sums:
            return {}
        return {"ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode()}

    def _abort_below(self, prefix: str) -> None:
        """Abort unfinished uploads of dead processes. Such uploads are invisible but cost money."""
        path = self._prefix + prefix
        with suppress(ClientError):  # the account may lack this permission, which only this call needs
            uploads = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=path)
            for upload in uploads.get("Uploads", ()):
                if upload["Key"] == path or upload["Key"].startswith(f"{path}/"):
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except BlobError:
            raise
        except (ClientError, BotoCoreError, ValueError) as exc:  # ValueError: the endpoint is not a URL
            raise translate(exc, where=self._where, key=key) from exc


class _Body(io.RawIOBase):
    """Makes the body of a download readable as a raw stream."""

    def __init__(self, body: Any, translated: Callable[[], Any]) -> None:
        super().__init__()
        self._body = body
        self._translated = translated

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._translated():
            data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._body.close()
        super().close()


def client_factory(
    *, region: str | None, path_style: bool, other_server: bool, key_files: tuple[Path, Path] | None = None
) -> Callable[[str | None], Any]:
    """Return a function that makes clients in a new session. Threads must not share boto3's default session."""
    session = boto3.session.Session(botocore_session=session_with(key_files))
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 3},
        s3={"addressing_style": "path" if path_style else "auto"},
        signature_version="s3v4",
        max_pool_connections=32,
        tcp_keepalive=True,
        user_agent_extra="daybreak",
        # Uploads carry SHA-256 already, and older servers reject CRC32 in trailers.
        request_checksum_calculation="when_required",
    )
    # Most servers other than AWS need some region for the signature, but accept any.
    name = region or session.region_name or ("us-east-1" if other_server else None)
    return lambda url: session.client("s3", endpoint_url=url, region_name=name, config=config)
