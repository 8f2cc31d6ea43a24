"""The blob store, in a local folder or on S3. :func:`open_blobs` chooses by the scheme of the URL."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from daybreak_server.ports.blobs import BlobRefusedError, Blobs


class S3Access(Protocol):
    """How to reach an S3 server: ``settings.artifacts.s3``."""

    @property
    def endpoint_url(self) -> str | None:
        """The server's URL; ``None`` for AWS."""

    @property
    def region(self) -> str | None:
        """The region; ``None`` if boto3 finds it in its usual sources, such as the AWS variables."""

    @property
    def path_style(self) -> bool:
        """Whether the URL has the bucket in its path, and not in its host name."""

    @property
    def public_endpoint_url(self) -> str | None:
        """The endpoint in presigned URLs; ``None`` means ``endpoint_url``."""

    @property
    def presign(self) -> bool:
        """Whether the store issues presigned URLs."""

    @property
    def key_files(self) -> tuple[Path, Path] | None:
        """The files with the access key and the secret, if these are in files."""


class StoreAddress(Protocol):
    """Where the blob store is: ``settings.artifacts``."""

    @property
    def url(self) -> str:
        """``file:///folder``, ``file:folder`` (relative to the working directory) or ``s3://bucket/prefix``."""

    @property
    def s3(self) -> S3Access:
        """How to reach the server of an ``s3://`` URL. Other URLs do not use it."""


def open_blobs(address: StoreAddress) -> Blobs:
    """The store at ``address`` (pass ``settings.artifacts``).

    Opening the store sends no request to it. To check that the store works, call its method ``probe``.

    :raises BlobRefusedError: when the URL names no store, or when the folder of the URL cannot be created.
    """
    parts = urlsplit(address.url)
    if parts.scheme == "file":
        from daybreak_server.adapters.blobs.local import LocalBlobs

        return LocalBlobs(folder_of(address.url))
    if parts.scheme == "s3" and parts.netloc:
        from daybreak_server.adapters.blobs.s3 import S3Blobs  # boto3 takes half a second to import

        return S3Blobs(
            bucket=parts.netloc,
            prefix=parts.path,
            endpoint_url=address.s3.endpoint_url,
            region=address.s3.region,
            path_style=address.s3.path_style,
            public_endpoint_url=address.s3.public_endpoint_url,
            presign=address.s3.presign,
            key_files=address.s3.key_files,
        )
    raise BlobRefusedError(
        f"{address.url!r} is not the URL of a blob store; "
        "set DAYBREAK_ARTIFACTS__URL to file:///folder or s3://bucket/prefix"
    )


def folder_of(url: str) -> Path:
    """The folder that a ``file:`` URL names. :raises BlobRefusedError: when it names none."""
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path:
        raise BlobRefusedError(
            f"{url!r} names no local folder; write file:///absolute/folder or file:relative/folder"
        )
    return Path(unquote(parts.path))
