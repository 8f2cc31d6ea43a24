"""Turn a response into a wire type, or raise the error of :mod:`daybreak.errors` that the response describes."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from daybreak.core.effects import Reply
from daybreak.errors import (
    ApiError,
    AuthError,
    BadRequestError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    QuotaError,
    ServerError,
    UnavailableError,
)
from daybreak.wire import ErrorCode, Problem
from daybreak.wire.errors import MEDIA_TYPE, TYPE_PREFIX

M = TypeVar("M", bound=BaseModel)

_BY_STATUS: dict[int, type[ApiError]] = {
    401: AuthError,
    403: AuthError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidInputError,
    429: QuotaError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}
_BY_CODE: dict[str, type[ApiError]] = {ErrorCode.IDEMPOTENCY_MISMATCH: ConflictError}
_EXCERPT_BYTES = 200


def parse(reply: Reply, model: type[M]) -> M:
    """Decode the body as ``model``.

    Raises ``ApiError`` for an error response, and ``ProtocolError`` if the body is not a ``model``.
    """
    raise_for_status(reply)
    try:
        return model.model_validate_json(reply.body)
    except ValidationError as exc:
        raise ProtocolError(_unexpected(reply, f"something that is not a {model.__name__}")) from exc


def raise_for_status(reply: Reply) -> None:
    """Raise ``ApiError`` for an error response, and ``ProtocolError`` for a redirect."""
    if reply.status < 300:
        return
    if reply.status < 400:
        raise ProtocolError(_unexpected(reply, f"a redirect to {reply.headers.get('location', 'nowhere')}"))
    raise _error(_problem(reply), retry_after(reply.headers.get("retry-after")))


def error_of(code: str, message: str, retry_after_s: float | None) -> ApiError:
    """The error for a message that has a code but no HTTP status, such as an error message on a WebSocket."""
    known = ErrorCode(code) if code in [*ErrorCode] else None
    problem = Problem(
        type=TYPE_PREFIX + code,
        title=known.title if known else code,
        status=known.status if known else 500,
        code=code or "unknown",
        detail=message,
    )
    return _error(problem, retry_after_s)


def _error(problem: Problem, retry_after_s: float | None) -> ApiError:
    fallback = BadRequestError if problem.status < 500 else ServerError
    error_type = _BY_CODE.get(problem.code) or _BY_STATUS.get(problem.status, fallback)
    return error_type(problem, retry_after_s=retry_after_s)


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """``Retry-After`` in seconds, from its number or date; ``None`` if it is absent or malformed."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


class _OpenAIError(BaseModel):
    message: str
    code: ErrorCode


class _OpenAIBody(BaseModel):
    """An error in OpenAI's format, as the routes of OpenAI's API return it."""

    error: _OpenAIError


def _problem(reply: Reply) -> Problem:
    try:
        error = _OpenAIBody.model_validate_json(reply.body).error
    except ValidationError:
        pass
    else:
        return Problem(
            type=TYPE_PREFIX + error.code.value,
            title=error.code.title,
            status=reply.status,
            code=error.code.value,
            detail=error.message,
            request_id=reply.headers.get("x-request-id"),
        )
    if reply.headers.get("content-type", "").split(";")[0].strip() == MEDIA_TYPE:
        try:
            return Problem.model_validate_json(reply.body)
        except ValidationError:
            pass
    # The response is not one of Daybreak's: it comes from a proxy or from another server. The error quotes it.
    code = f"http_{reply.status}"
    return Problem(
        type=TYPE_PREFIX + code,
        title=f"HTTP {reply.status}",
        status=reply.status,
        code=code,
        detail=_unexpected(reply, f"HTTP {reply.status}"),
        request_id=reply.headers.get("x-request-id"),
    )


def _unexpected(reply: Reply, what: str) -> str:
    excerpt = " ".join(reply.body[:_EXCERPT_BYTES].decode("utf-8", "replace").split())
    return f"the server answered with {what}" + (f": {excerpt}" if excerpt else "")
