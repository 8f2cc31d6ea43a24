"""When to try again, and after how long."""

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

NOTHING_DONE = frozenset({"queue_full", "shutting_down", "quota_exceeded", "too_many_streams"})
"""Codes of temporary refusals that are given before anything is changed."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How patient a client is. ``Retry(attempts=1)`` never tries again."""

    attempts: int = 5
    """Tries of one request in all; also tries to open a stream that was never open."""
    first_s: float = 0.25
    factor: float = 2.0
    max_s: float = 8.0
    max_retry_after_s: float = 60.0
    """A server that asks for more is not waited for: its error is raised, with ``retry_after_s``."""
    stream_s: float = 300.0
    """An open stream that is lost is reconnected for so long without hearing anything."""

    def delay(
        self, failures: int, error: DaybreakError, *, draw: Callable[[], float] = random.random
    ) -> float:
        """Seconds to wait after so many failures in a row (≥ 1): at least what the server asked for.

        Many clients that lose one server come back spread over time, because up to half of the wait is drawn.
        """
        backoff = min(self.max_s, self.first_s * self.factor ** min(failures - 1, 30))
        asked = (
            error.retry_after_s if isinstance(error, ApiError) and error.retry_after_s is not None else 0.0
        )
        return max(asked, backoff * 0.5) + backoff * 0.5 * draw()

    def patient(self, error: DaybreakError) -> bool:
        """Whether the error is temporary, and the server asks for no longer wait than is allowed."""
        if isinstance(error, QuotaError | UnavailableError):
            return error.retry_after_s is None or error.retry_after_s <= self.max_retry_after_s
        return isinstance(error, TransportError)


class Repeat(Enum):
    """What a second send of the same request would do."""

    SAFE = "the same as one: it reads, has an idempotency key, or asks for an end state"
    GONE_IS_DONE = "the same as one, but answered 404, since what the first removed is gone"


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request, what its answer means, and whether it may be repeated."""

    request: HttpRequest
    read: Callable[[Reply], T]
    repeat: Repeat = Repeat.SAFE
    gone: T | None = None
    """The value for :attr:`Repeat.GONE_IS_DONE`."""


def did_nothing(error: DaybreakError) -> bool:
    """Whether the server certainly changed nothing."""
    return isinstance(error, UnreachableError) or (isinstance(error, ApiError) and error.code in NOTHING_DONE)


def calling(call: Call[T], retry: Retry) -> Operation[T]:
    """Make the call, again where that is safe and may help. Raises the last error."""
    failures = 0
    doubt = False
    while True:
        try:
            reply = yield Send(call.request)
            return call.read(reply)
        except NotFoundError:
            if doubt and call.repeat is Repeat.GONE_IS_DONE and call.gone is not None:
                return call.gone
            raise
        except (TransportError, QuotaError, UnavailableError) as error:
            failures += 1
            doubt = doubt or not did_nothing(error)
            if failures >= retry.attempts or not retry.patient(error):
                raise
            delay = retry.delay(failures, error)
        yield Sleep(delay)
