"""Translates the errors of boto3 into errors of the port, whose messages say what to do."""

from __future__ import annotations

from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.exceptions import ConnectionError as NotConnectedError

from daybreak_server.ports.blobs import (
    BlobError,
    BlobExistsError,
    BlobNotFoundError,
    BlobRefusedError,
    BlobUnavailableError,
)

_KEYS = "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) or AWS_PROFILE, or use a role"
_REGION = "set DAYBREAK_ARTIFACTS__S3__REGION to the region of the bucket"
_ENDPOINT = "check that the store is running, and that DAYBREAK_ARTIFACTS__S3__ENDPOINT_URL is right"
_FULL = "free some space or raise the quota"

_WHAT_TO_DO: Final = {
    "NoSuchBucket": "there is no such bucket; create it, or name another one in DAYBREAK_ARTIFACTS__URL",
    "InvalidBucketName": "the bucket name is invalid; correct DAYBREAK_ARTIFACTS__URL (s3://bucket/prefix)",
    "InvalidAccessKeyId": f"the server does not know this access key; {_KEYS}",
    "XAdminUserNotFound": f"the server does not know this access key; {_KEYS}",  # versitygw
    "SignatureDoesNotMatch": f"the secret key is wrong; {_KEYS}",
    "ExpiredToken": f"the credentials have expired; {_KEYS}",
    "InvalidToken": f"the session token is wrong; {_KEYS}",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "301": _REGION,
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
    "EntityTooLarge": "the file is larger than the server accepts",
}
_RIGHTS: Final = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
}
_TEMPORARY: Final = {"SlowDown", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"}


def code_of(exc: ClientError) -> str:
    """S3's error code. The response to a HEAD has no body, so its code is the HTTP status as text."""
    return str(exc.response.get("Error", {}).get("Code", ""))


def status_of(exc: ClientError) -> int:
    """The HTTP status; 0 if there is none."""
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_conflict(exc: ClientError) -> bool:
    """Whether a precondition failed: on an upload, a file has this key already; on a download, the file has changed."""
    return code_of(exc) in {"PreconditionFailed", "412"} or status_of(exc) == 412


def translate(exc: ClientError | BotoCoreError | ValueError, *, where: str, key: str) -> BlobError:
    """The port's error, with a message that says what to do. ``where`` names the store."""
    if isinstance(exc, ClientError):
        return _of_server(exc, where=where, key=key)
    if isinstance(
        exc, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | ProfileNotFound
    ):
        return BlobRefusedError(f"{where}: {exc}; {_KEYS}")
    if isinstance(exc, ParamValidationError | ValueError):
        return BlobRefusedError(f"{where}: {exc}; correct DAYBREAK_ARTIFACTS__URL or …__S3__ENDPOINT_URL")
    if isinstance(exc, SSLError):
        return BlobUnavailableError(
            f"{where}: {exc}; check that this machine trusts its certificate (AWS_CA_BUNDLE)"
        )
    if isinstance(exc, NotConnectedError | HTTPClientError):
        return BlobUnavailableError(f"{where} cannot be reached: {exc}; {_ENDPOINT}")
    return BlobUnavailableError(f"{where}: {exc}")


def _of_server(exc: ClientError, *, where: str, key: str) -> BlobError:
    code, status = code_of(exc), status_of(exc)
    answer = f"{where}: {exc.operation_name} was answered {code or status}"
    if is_conflict(exc):
        return BlobExistsError(f"{key} already exists, and files are never overwritten")
    if code in _WHAT_TO_DO:
        return BlobRefusedError(f"{answer}; {_WHAT_TO_DO[code]}")
    if code in {"NoSuchKey", "404", "NotFound"}:
        return BlobNotFoundError(f"there is no file {key} in {where}")
    if code in {"AccessDenied", "Forbidden", "403"} or status in {401, 403}:
        right = _RIGHTS.get(exc.operation_name, "s3:PutObject")
        return BlobRefusedError(f"{answer}; grant {right} to the credentials in use")
    if code in _TEMPORARY or status >= 500 or status == 429:
        return BlobUnavailableError(f"{answer}; retry later")
    detail = exc.response.get("Error", {}).get("Message", "")
    return BlobRefusedError(f"{answer}: {detail}")
