"""What an answer means: a wire type, or an error of the tree."""

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
_SHOWN = 200


def parse(reply: Reply, model: type[M]) -> M:
    """The answer as the model. Raises ``ApiError`` for a refusal, ``ProtocolError`` for what is not ours."""
    refuse(reply)
    try:
        return model.model_validate_json(reply.body)
    except ValidationError as exc:
        raise ProtocolError(_foreign(reply, f"not a {model.__name__}")) from exc


def refuse(reply: Reply) -> None:
    """Raise the error that the answer carries, if it does."""
    if reply.status < 300:
        return
    if reply.status < 400:
        raise ProtocolError(_foreign(reply, f"a redirect to {reply.headers.get('location', 'nowhere')}"))
    problem = _problem(reply)
    fallback = BadRequestError if reply.status < 500 else ServerError
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(reply.status, fallback)
    raise kind(problem, retry_after_s=retry_after(reply.headers.get("retry-after")))


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """``Retry-After`` in seconds, from its number or its date; ``None`` when absent or unreadable."""
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


def _problem(reply: Reply) -> Problem:
    if reply.headers.get("content-type", "").split(";")[0].strip() == MEDIA_TYPE:
        try:
            return Problem.model_validate_json(reply.body)
        except ValidationError:
            pass
    # A proxy in between, or no Daybreak at all: say what came rather than hide it.
    code = f"http_{reply.status}"
    return Problem(
        type=TYPE_PREFIX + code,
        title=f"HTTP {reply.status}",
        status=reply.status,
        code=code,
        detail=_foreign(reply, f"HTTP {reply.status}"),
        request_id=reply.headers.get("x-request-id"),
    )


def _foreign(reply: Reply, what: str) -> str:
    start = " ".join(reply.body[:_SHOWN].decode("utf-8", "replace").split())
    return f"the server answered {what}" + (f": {start}" if start else "")
