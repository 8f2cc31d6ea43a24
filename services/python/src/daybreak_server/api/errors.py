"""The errors that the API answers with, and the translation of other errors into them.

Routes raise :class:`ApiError`. The errors of the ports, of pydantic and of Starlette's routing are translated by this
module only: pydantic's errors about a body by :func:`from_validation`, those about query parameters by
:func:`from_query_errors`, and most others by :func:`to_api_error`. An ``ApiError`` has a stable code with its status,
and a sentence for this one case. Other errors get these codes::

    StoreError       idempotency_mismatch, conflict, queue_full or store_unavailable;
                     for sessions also sessions_full or not_found
    BlobError        no_such_artifact or store_unavailable
    HTTPException    not_found, method_not_allowed or bad_header

An exception that is none of these is a bug: it becomes ``internal``, a 500.

An ``ApiError`` does not determine the format of its response. An :data:`ErrorRenderer` does. Middleware and exception
handlers receive the renderer as an argument. There are two renderers:
:mod:`~daybreak_server.api.task_api.problem_json`, and :mod:`~daybreak_server.api.openai.errors` for the clients of
OpenAI's API.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from daybreak.wire import ErrorCode, FieldError
from daybreak_server.api import path_prefix
from daybreak_server.ports.blobs import BlobError, BlobNotFoundError
from daybreak_server.ports.sessions import (
    AudioGapError,
    SessionEndedError,
    SessionsFullError,
    SessionUnknownError,
)
from daybreak_server.ports.store_errors import (
    ConflictError,
    IdempotencyMismatchError,
    QueueFullError,
    StoreError,
    StoreFullError,
    StoreRefusedError,
)

MAX_FIELD_ERRORS = 20
MAX_FIELD_CHARS = 200
RETRY_AFTER_S = {
    ErrorCode.QUEUE_FULL: 5.0,
    ErrorCode.NAME_NOT_RESOLVED: 5.0,
    ErrorCode.STORE_UNAVAILABLE: 1.0,
    ErrorCode.SHUTTING_DOWN: 1.0,
}
"""The default of ``Retry-After``, by code. Other codes have no default."""


class ApiError(Exception):
    """An error for the client. The code determines the title, and the status unless one is given."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        limit: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
        wake: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status or code.status
        self.detail = detail
        self.errors = list(errors)
        self.limit = limit
        self.retry_after_s = RETRY_AFTER_S.get(code) if retry_after_s is None else retry_after_s
        self.headers = dict(headers or {})
        self.wake = wake


ErrorRenderer = Callable[[ApiError, str | None], Response]
"""Makes the response from an error and the id of the request."""


def request_id_of(scope: Scope) -> str | None:
    """The id that the middleware gave the request."""
    request_id: str | None = scope.get("state", {}).get("request_id")
    return request_id


def record_code(scope: Scope, error: ApiError) -> None:
    """Record the code of the error that answers the request. The middleware counts requests by this code."""
    scope.setdefault("state", {})["error_code"] = error.code.value


def code_of(scope: Scope) -> str:
    """The code of the error that answers the request; ``none`` if the request succeeds."""
    return str(scope.get("state", {}).get("error_code", "none"))


def not_found(detail: str) -> ApiError:
    """The object does not exist or belongs to another tenant; the client cannot tell which."""
    return ApiError(ErrorCode.NOT_FOUND, detail)


def task_not_found(task: str) -> ApiError:
    """The task does not exist or belongs to another tenant."""
    return not_found(
        f"There is no task {task[:MAX_FIELD_CHARS]!r}. Check the id; a task is deleted when its retention ends."
    )


def session_not_found(session: str = "") -> ApiError:
    """The session does not exist or belongs to another tenant; the client cannot tell which."""
    named = f" {session[:MAX_FIELD_CHARS]!r}" if session else ""
    return not_found(f"There is no such session{named}. It is deleted a while after its end; open a new one.")


def invalid(errors: Sequence[FieldError]) -> ApiError:
    """One or more invalid fields. The detail has the message of the first field, and begins with the field's name."""
    first = errors[0]
    name = re.escape(first.field.rpartition(".")[2])
    begins_with_name = re.match(rf"(The )?{name}(?!\w)", first.message)
    detail = first.message if begins_with_name else f"{first.field}: {first.message}"
    return ApiError(ErrorCode.INVALID_INPUT, detail, errors=errors)


def invalid_field(field: str, message: str) -> ApiError:
    """One invalid field."""
    return invalid([FieldError(field=field, message=message)])


def from_validation(exc: ValidationError, *, within: str = "") -> ApiError:
    """Pydantic's errors, with paths such as ``input.frames``; ``within`` is the path's first part.

    If a field may have several types, pydantic tries each type, and adds its name to the path. Daybreak gives these
    types names in angle brackets. The names are left out of the path, because the client's JSON has no such fields.
    """
    found = exc.errors(include_url=False, include_context=False, include_input=False)
    return invalid([_field_error(e, within) for e in found[:MAX_FIELD_ERRORS]])


def _field_error(error: Mapping[str, Any], within: str) -> FieldError:
    parts = ([within] if within else []) + [str(part) for part in error["loc"] if not _is_alternative(part)]
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return FieldError(field=".".join(parts)[:MAX_FIELD_CHARS] or "body", message=message[:1000])


def _is_alternative(part: Any) -> bool:
    return isinstance(part, str) and part.startswith("<") and part.endswith(">")


def from_store(exc: StoreError) -> ApiError:
    """An error of the task store."""
    match exc:
        case IdempotencyMismatchError():
            return ApiError(
                ErrorCode.IDEMPOTENCY_MISMATCH,
                "This Idempotency-Key was used with another body. Use a new key, or send the first body again.",
            )
        case ConflictError():
            return ApiError(ErrorCode.CONFLICT, str(exc) or "The task's state does not allow this.")
        case QueueFullError():
            return ApiError(ErrorCode.QUEUE_FULL, "The pool's queue is full. Retry later.")
        case StoreFullError():
            detail = "The store has no memory for new tasks, sessions or audio. Retry later."
            return ApiError(ErrorCode.QUEUE_FULL, detail)
        case StoreRefusedError():
            return ApiError(
                ErrorCode.STORE_UNAVAILABLE,
                "The task store rejects this server's user or password. An administrator must correct them. "
                "Retry later.",
            )
        case _:
            return _from_sessions(exc)


def _from_sessions(exc: StoreError) -> ApiError:
    """An error of the store of sessions. Any error without a case here means that the store cannot be reached."""
    match exc:
        case SessionsFullError():
            wait_s = max(1.0, exc.retry_after_s)
            detail = f"The pool takes no further session now. Retry in {wait_s:.0f} s."
            return ApiError(ErrorCode.SESSIONS_FULL, detail, limit="sessions", retry_after_s=wait_s)
        case AudioGapError():
            detail = "Audio before this piece is missing. Connect again, and send from where the server says."
            return ApiError(ErrorCode.CONFLICT, detail)
        case SessionEndedError():
            return ApiError(
                ErrorCode.CONFLICT, "The session has ended, so it takes no audio. Open a new one."
            )
        case SessionUnknownError():
            return session_not_found()
        case _:
            return ApiError(ErrorCode.STORE_UNAVAILABLE, "The task store cannot be reached. Retry.")


def from_blobs(exc: BlobError) -> ApiError:
    """An error of the blob store."""
    if isinstance(exc, BlobNotFoundError):
        return ApiError(
            ErrorCode.NO_SUCH_ARTIFACT,
            "The blob store no longer has this file. Replay the task to make it again.",
        )
    return ApiError(ErrorCode.STORE_UNAVAILABLE, "The blob store cannot be reached. Retry.")


def from_http(exc: HTTPException, path: str) -> ApiError:
    """An error of Starlette's routing: an unknown path or method."""
    if exc.status_code == 404:
        docs = f"{path_prefix.current()}/docs"
        return not_found(f"There is no path {path[:MAX_FIELD_CHARS]}. See {docs} for all paths.")
    if exc.status_code == 405:
        return ApiError(
            ErrorCode.METHOD_NOT_ALLOWED,
            "This path does not support the method. The header Allow lists the methods that it supports.",
        )
    return ApiError(ErrorCode.BAD_HEADER, str(exc.detail), headers=dict(exc.headers or {}))


def from_query_errors(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """Invalid query parameters, as pydantic describes them.

    ``query.limit`` is named ``limit``, and ``query.state.0`` is named ``state``.
    """
    found = [{**error, "loc": error["loc"][1:2]} for error in errors[:MAX_FIELD_ERRORS]]
    return invalid([_field_error(error, "") for error in found])


def to_api_error(exc: Exception, path: str) -> ApiError | None:
    """The exception as an error for the client; ``None`` if it is a bug."""
    match exc:
        case ApiError():
            return exc
        case StoreError():
            return from_store(exc)
        case BlobError():
            return from_blobs(exc)
        case HTTPException():
            return from_http(exc, path)
        case _:
            return None
