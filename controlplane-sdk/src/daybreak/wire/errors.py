"""Errors: RFC 9457 ``application/problem+json`` with a stable code."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from daybreak.wire.base import ResponseModel
from daybreak.wire.wake import Wake

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "https://daybreak.dev/errors/"


class ErrorCode(StrEnum):
    """The codes of errors. A code determines the ``status`` and the ``title`` of its error."""

    BAD_JSON = "bad_json"
    BAD_CURSOR = "bad_cursor"
    BAD_EVENT_ID = "bad_event_id"
    BAD_HEADER = "bad_header"
    NO_KEY = "no_key"
    BAD_KEY = "bad_key"
    FORBIDDEN = "forbidden"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    NOT_FOUND = "not_found"
    NO_SUCH_POOL = "no_such_pool"
    MODEL_NOT_FOUND = "model_not_found"
    NO_SUCH_ARTIFACT = "no_such_artifact"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    BAD_RANGE = "bad_range"
    INVALID_INPUT = "invalid_input"
    INVALID_AUDIO = "invalid_audio"
    HOST_NOT_ALLOWED = "host_not_allowed"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    QUOTA_EXCEEDED = "quota_exceeded"
    TOO_MANY_STREAMS = "too_many_streams"
    SESSIONS_FULL = "sessions_full"
    QUEUE_FULL = "queue_full"
    STORE_UNAVAILABLE = "store_unavailable"
    SHUTTING_DOWN = "shutting_down"
    NAME_NOT_RESOLVED = "name_not_resolved"
    NOT_READY = "not_ready"
    GROUP_FAILED = "group_failed"
    DEADLINE_PASSED = "deadline_passed"
    INTERNAL = "internal"

    @property
    def status(self) -> int:
        """The HTTP status of an error with this code. A group may send the code with another status, such as
        `queue_full` with 429."""
        return _STATUS_AND_TITLE[self][0]

    @property
    def title(self) -> str:  # type: ignore[override]  # RFC 9457's field of this name, not str.title
        """The title of every error with this code."""
        return _STATUS_AND_TITLE[self][1]


_STATUS_AND_TITLE: dict[ErrorCode, tuple[int, str]] = {
    ErrorCode.BAD_JSON: (400, "The body is not valid JSON"),
    ErrorCode.BAD_CURSOR: (400, "The cursor is not valid"),
    ErrorCode.BAD_EVENT_ID: (400, "The event id is not valid"),
    ErrorCode.BAD_HEADER: (400, "A header is not valid"),
    ErrorCode.NO_KEY: (401, "The request has no API key"),
    ErrorCode.BAD_KEY: (401, "The API key is not valid"),
    ErrorCode.FORBIDDEN: (403, "The API key does not allow this request"),
    ErrorCode.ORIGIN_NOT_ALLOWED: (403, "Web pages from this origin may not send this request"),
    ErrorCode.NOT_FOUND: (404, "The object does not exist"),
    ErrorCode.NO_SUCH_POOL: (404, "The pool does not exist"),
    ErrorCode.MODEL_NOT_FOUND: (404, "The model does not exist"),
    ErrorCode.NO_SUCH_ARTIFACT: (404, "The task has no such artifact"),
    ErrorCode.METHOD_NOT_ALLOWED: (405, "The path does not support this method"),
    ErrorCode.NOT_ACCEPTABLE: (406, "The client accepts none of the types that this path serves"),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: (415, "The type of the body is not supported"),
    ErrorCode.CONFLICT: (409, "The object's state does not allow this request"),
    ErrorCode.TOO_LARGE: (413, "The request is too large"),
    ErrorCode.BAD_RANGE: (416, "The range lies outside the file"),
    ErrorCode.HOST_NOT_ALLOWED: (421, "The server does not serve this host name"),
    ErrorCode.INVALID_INPUT: (422, "The input is not valid"),
    ErrorCode.INVALID_AUDIO: (422, "The audio is not valid"),
    ErrorCode.IDEMPOTENCY_MISMATCH: (422, "The Idempotency-Key was already used with another body"),
    ErrorCode.QUOTA_EXCEEDED: (429, "A quota is exhausted"),
    ErrorCode.TOO_MANY_STREAMS: (429, "Too many streams are open"),
    ErrorCode.SESSIONS_FULL: (429, "The pool takes no further session now"),
    ErrorCode.QUEUE_FULL: (503, "The queue is full"),
    ErrorCode.STORE_UNAVAILABLE: (503, "The store cannot be reached"),
    ErrorCode.SHUTTING_DOWN: (503, "The server is shutting down"),
    ErrorCode.NAME_NOT_RESOLVED: (503, "A host name has no address"),
    ErrorCode.NOT_READY: (503, "No group could take the request in time"),
    ErrorCode.GROUP_FAILED: (502, "A group failed while it had the request"),
    ErrorCode.DEADLINE_PASSED: (504, "The deadline of the request has passed"),
    ErrorCode.INTERNAL: (500, "The server has a bug"),
}


class FieldError(ResponseModel):
    """An error of one field. ``field`` is a path such as ``input.frames``."""

    field: str
    message: str


class Problem(ResponseModel):
    """The body of an error response."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] = Field(default_factory=list)
    limit: str | None = None
    retry_after_s: float | None = None
    request_id: str | None = None
    wake: Wake | None = None
