"""Reads the files of a model below ``s3://bucket/prefix``, range by range."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from daybreak_server.adapters.blobs import S3Access
from daybreak_server.adapters.blobs.s3 import client_factory
from daybreak_server.adapters.blobs.s3_errors import is_conflict, translate
from daybreak_server.ports.blobs import BlobError, BlobNotFoundError, BlobRefusedError, BlobUnavailableError

CHUNK_BYTES: Final = 1 << 20
"""The size of the chunks in which :meth:`S3Model.read` yields a range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A file of a model. ``tag`` is its ETag, which changes whenever the content changes."""

    name: str
    """The path below the model's prefix."""
    size_bytes: int
    tag: str


class S3Model:
    """A model on S3. Several threads may use it at once."""

    def __init__(self, url: str, access: S3Access) -> None:
        """Prepare a client for the model at ``url`` (``s3://bucket/prefix``). This makes no request yet.

        :raises BlobError: when the settings cannot be used, such as an endpoint that is not a URL.
        """
        parts = urlsplit(url)
        self.url = url
        self._bucket = parts.netloc
        self._prefix = f"{parts.path.strip('/')}/" if parts.path.strip("/") else ""
        self._where = f"model {url} at {access.endpoint_url or 'AWS'}"
        with self._translated(""):
            client = client_factory(
                region=access.region,
                path_style=access.path_style,
                other_server=access.endpoint_url is not None,
                key_files=access.key_files,
            )
            self._client = client(access.endpoint_url)

    def files(self) -> tuple[ModelFile, ...]:
        """List all files, sorted by name.

        :raises BlobError: when there are no files, or the store refuses the call or cannot be reached.
        """
        files = []
        with self._translated(""):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for item in page.get("Contents", ()):
                    name = item["Key"].removeprefix(self._prefix)
                    if name and not name.endswith("/"):  # S3 consoles create empty objects for folders
                        files.append(ModelFile(name=_inside(name), size_bytes=item["Size"], tag=item["ETag"]))
        if not files:
            raise BlobNotFoundError(
                f"{self._where} does not exist: the bucket has no object below that prefix; copy the model's "
                "folder there, or correct the pool's model"
            )
        return tuple(sorted(files, key=lambda file: file.name))

    def read(self, file: ModelFile, start: int, length: int) -> Iterator[bytes]:
        """Read a range and yield it in chunks. If no error is raised, the chunks make up the whole range.

        :raises BlobUnavailableError: when the store cannot be reached, or the file has changed since :meth:`files`.
        :raises BlobError: when the store refuses the request, or the file is gone.
        """
        key, remaining = self._prefix + file.name, length
        with self._translated(file.name):
            body = self._client.get_object(
                Bucket=self._bucket, Key=key, Range=f"bytes={start}-{start + length - 1}", IfMatch=file.tag
            )["Body"]
            try:
                while remaining and (chunk := body.read(min(CHUNK_BYTES, remaining))):
                    remaining -= len(chunk)
                    yield chunk
            finally:
                body.close()
        if remaining:
            raise BlobUnavailableError(
                f"{self._where}: {file.name} ended {remaining} bytes early; if retries do not help, check the "
                "connection to the object store"
            )

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except BlobError:
            raise
        except ClientError as exc:
            if is_conflict(exc):
                raise BlobUnavailableError(
                    f"{self._where}: {name} changed during the download; finish the upload of the new version, then "
                    "retry"
                ) from exc
            raise translate(exc, where=self._where, key=name) from exc
        except (BotoCoreError, ValueError) as exc:
            raise translate(exc, where=self._where, key=name) from exc


def _inside(name: str) -> str:
    """Return ``name`` unchanged. :raises BlobRefusedError: when it leads out of the model's folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name:
        raise BlobRefusedError(
            f"the model contains a file named {name!r}, which leads out of the model's folder; rename the file"
        )
    return name
