"""When a client retries a request, and after how long.

Every request of this client may be sent twice: it only reads, carries an idempotency key, or asks for an end
state, such as a cancelled task, or a registered or deleted model.

So :func:`request_with_retries` retries after any temporary error (no connection, a broken connection, 429, 502, 503,
504) with exponential backoff and jitter, and never earlier than the server's ``Retry-After``.

A ``DELETE`` needs care: if the response was lost, the same request gets 404 when it is sent again. So
``request_with_retries`` remembers whether an earlier attempt may have reached the server. Only then does 404 mean
"deleted". In the same way, 409 may mean that an earlier attempt has already created the object.

Event streams, downloads and live sessions have retry loops of their own (:mod:`daybreak.core.follow`,
:mod:`daybreak.core.download`, :mod:`daybreak.live_session`), because a broken stream is not repeated but continued:
each attempt asks for what has not arrived yet, and the count of failures starts over when events or bytes of a file
have arrived. :class:`Retry` sets the limits of all these loops.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from daybreak.core.effects import HttpRequest, Operation, Reply, Send, Sleep
from daybreak.errors import (
    ApiError,
    ConflictError,
    DaybreakError,
    NotFoundError,
    QuotaError,
    TransportError,
    UnavailableError,
    UnreachableError,
)

T = TypeVar("T")

NO_EFFECT_CODES = frozenset({"queue_full", "shutting_down", "quota_exceeded", "too_many_streams"})
"""Codes of temporary errors that the server returns before it changes anything."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often and how long a client retries.

    ``Retry(attempts=1)`` sends each request once. Even then, the client tries for ``stream_s`` to continue a lost event
    stream.
    """

    attempts: int = 5
    """The maximum number of attempts for a request, and for opening an event stream the first time."""
    first_s: float = 0.25
    factor: float = 2.0
    max_s: float = 8.0
    max_retry_after_s: float = 60.0
    """If the server asks for a longer pause, the client raises the server's error at once. The pause is in the field
    ``retry_after_s`` of the error."""
    stream_s: float = 300.0
    """For how long the client tries to replace the lost connection of an event stream or a live session."""

    def delay(
        self, failures: int, error: DaybreakError, *, draw: Callable[[], float] = random.random
    ) -> float:
        """Seconds to wait after ``failures`` (≥ 1) consecutive failures: at least the server's ``Retry-After``.

        Half of the backoff is random, so that clients do not all return at the same time after their server has failed.
        """
        backoff = min(self.max_s, self.first_s * self.factor ** min(failures - 1, 30))
        retry_after_s = (
            error.retry_after_s if isinstance(error, ApiError) and error.retry_after_s is not None else 0.0
        )
        return max(retry_after_s, backoff * 0.5) + backoff * 0.5 * draw()

    def should_retry(self, error: DaybreakError) -> bool:
        """Whether the error is temporary and its ``Retry-After`` is not above ``max_retry_after_s``."""
        if isinstance(error, QuotaError | UnavailableError):
            return error.retry_after_s is None or error.retry_after_s <= self.max_retry_after_s
        return isinstance(error, TransportError)


class Repeat(Enum):
    """What the server answers when the same request is sent twice."""

    SAME_ANSWER = (
        "the same as the first time: the request reads, has an idempotency key, or asks for an end state"
    )
    NOT_FOUND = "404, because the first request has deleted the object"


@dataclass(frozen=True, kw_only=True)
class ApiRequest(Generic[T]):
    """A request to one route: what to send, how to read the response, and what sending it twice does."""

    request: HttpRequest
    read: Callable[[Reply], T]
    repeat: Repeat = Repeat.SAME_ANSWER
    result_if_deleted: T | None = None
    """The result if a 404 means that an earlier attempt has deleted the object (see :attr:`Repeat.NOT_FOUND`)."""
    if_created: ApiRequest[T | None] | None = None
    """The request that asks, after a 409, whether an earlier attempt has created the object. Its result is the object,
    or ``None``."""


def changed_nothing(error: DaybreakError) -> bool:
    """Whether the server certainly changed nothing: it was not reached, or it refused the request."""
    return isinstance(error, UnreachableError) or (
        isinstance(error, ApiError) and error.code in NO_EFFECT_CODES
    )


def request_with_retries(api_request: ApiRequest[T], retry: Retry) -> Operation[T]:
    """Send the request, retry it after temporary errors, and return its result.

    If the error is permanent or all attempts have failed, raise the last error.
    """
    failures = 0
    may_have_acted = False
    while True:
        try:
            reply = yield Send(api_request.request)
            return api_request.read(reply)
        except NotFoundError:
            deleted = may_have_acted and api_request.repeat is Repeat.NOT_FOUND
            if deleted and api_request.result_if_deleted is not None:
                return api_request.result_if_deleted
            raise
        except ConflictError as error:
            if not may_have_acted or api_request.if_created is None:
                raise
            created = yield from request_with_retries(api_request.if_created, retry)
            if created is None:
                raise error from None
            return created
        except (TransportError, QuotaError, UnavailableError) as error:
            failures += 1
            may_have_acted = may_have_acted or not changed_nothing(error)
            if failures >= retry.attempts or not retry.should_retry(error):
                raise
            delay = retry.delay(failures, error)
        yield Sleep(delay)
