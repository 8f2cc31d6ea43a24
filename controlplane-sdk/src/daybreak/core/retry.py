"""When to retry a request, and after how long.

Every request of this client may be sent twice: it reads, carries an idempotency key, or asks for an end state. So
:func:`call` retries any temporary error (no connection, a broken connection, 429, 502, 503, 504) with exponential
backoff and jitter, and never earlier than the server's ``Retry-After``.

One request needs care: a ``DELETE`` whose response was lost gets 404 when it is sent again. ``call`` therefore
remembers whether an earlier attempt may have reached the server; only then does 404 mean "deleted".
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
    """How often and how long a client retries. ``Retry(attempts=1)`` never retries."""

    attempts: int = 5
    """Attempts per request in total, and attempts to open an event stream that was never open."""
    first_s: float = 0.25
    factor: float = 2.0
    max_s: float = 8.0
    max_retry_after_s: float = 60.0
    """If the server asks for a longer pause, its error is raised instead, with ``retry_after_s``."""
    stream_s: float = 300.0
    """How long to reconnect a lost event stream without receiving anything."""

    def delay(
        self, failures: int, error: DaybreakError, *, draw: Callable[[], float] = random.random
    ) -> float:
        """Seconds to wait after ``failures`` (≥ 1) consecutive failures: at least the server's ``Retry-After``.

        Up to half of the backoff is random, so that many clients that lose the same server return spread over time.
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
    """What happens when the same request is sent twice."""

    SAFE = "the same as once: the request reads, has an idempotency key, or asks for an end state"
    GONE_IS_DONE = (
        "the same as once, but the second response is 404, because the first request removed the object"
    )


@dataclass(frozen=True, kw_only=True)
class ApiCall(Generic[T]):
    """A request, how to read its response, and what a repeated send does."""

    request: HttpRequest
    read: Callable[[Reply], T]
    repeat: Repeat = Repeat.SAFE
    gone: T | None = None
    """The result to return for :attr:`Repeat.GONE_IS_DONE`."""


def is_safe_to_retry(error: DaybreakError) -> bool:
    """Whether the server certainly changed nothing, so that a repeated send is the first one that counts."""
    return isinstance(error, UnreachableError) or (
        isinstance(error, ApiError) and error.code in NO_EFFECT_CODES
    )


def call(api_call: ApiCall[T], retry: Retry) -> Operation[T]:
    """Send the request and retry temporary errors. Raises the last error."""
    failures = 0
    may_have_acted = False
    while True:
        try:
            reply = yield Send(api_call.request)
            return api_call.read(reply)
        except NotFoundError:
            if may_have_acted and api_call.repeat is Repeat.GONE_IS_DONE and api_call.gone is not None:
                return api_call.gone
            raise
        except (TransportError, QuotaError, UnavailableError) as error:
            failures += 1
            may_have_acted = may_have_acted or not is_safe_to_retry(error)
            if failures >= retry.attempts or not retry.should_retry(error):
                raise
            delay = retry.delay(failures, error)
        yield Sleep(delay)
