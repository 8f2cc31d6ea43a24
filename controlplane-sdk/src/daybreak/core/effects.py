"""The effects that operations yield, and how a client returns their outcomes with :func:`step`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")

RESPONSE_TIMEOUT_S = 30.0
STREAM_TIMEOUT_S = 40.0
"""Longer than two of the server's heartbeats (15 s), so a silent stream means a dead connection."""


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """A request. ``path`` is relative to the server's URL and already quoted."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any | None = None
    read_timeout_s: float = RESPONSE_TIMEOUT_S
    """Give up if no byte arrives for this long."""
    follow_redirects: bool = False


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A response with lower-case header names. ``body`` is empty while a stream is open."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Send:
    """Send the request and read the whole response. Returns a :class:`Reply`."""

    request: HttpRequest


@dataclass(frozen=True)
class Open:
    """Send the request and keep its response open for :class:`Read`. Returns a :class:`Reply`.

    An error response is read completely.
    """

    request: HttpRequest


@dataclass(frozen=True)
class Read:
    """Read the next bytes of the open response. Returns ``bytes``, or ``None`` at its end."""


@dataclass(frozen=True)
class Close:
    """Close the open response, if any."""


@dataclass(frozen=True)
class Sleep:
    """Wait this long."""

    seconds: float


@dataclass(frozen=True)
class CallSync:
    """Call a function that may block on a file. Returns its result."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Emit:
    """Yield this value to the caller who iterates."""

    value: Any


Effect: TypeAlias = Send | Open | Read | Close | Sleep | CallSync | Emit
Operation: TypeAlias = Generator[Effect, Any, T]


@dataclass(frozen=True)
class Outcome:
    """The result of an effect: a value, or the error to raise inside the operation."""

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class Done(Generic[T]):
    """The operation has returned this value."""

    value: T


def step(operation: Operation[T], outcome: Outcome) -> Effect | Done[T]:
    """Resume the operation until its next effect. Raises what the operation raises."""
    try:
        if outcome.error is not None:
            return operation.throw(outcome.error)
        return operation.send(outcome.value)
    except StopIteration as stop:
        return Done(stop.value)
