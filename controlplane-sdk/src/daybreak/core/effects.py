"""The effects that operations ask for, and how a client hands their outcomes back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")

ANSWER_TIMEOUT_S = 30.0
STREAM_TIMEOUT_S = 40.0
"""Longer than two of the server's heartbeats (15 s), so that a silent stream is a dead one."""


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """A request, ready to be sent; ``path`` is below the server's URL and already quoted."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any | None = None
    read_timeout_s: float = ANSWER_TIMEOUT_S
    """The longest silence that is waited out."""
    follow_redirects: bool = False


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer; header names are in lower case. ``body`` is empty for a stream that is still open."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Send:
    """Send the request and read its whole answer → :class:`Reply`."""

    request: HttpRequest


@dataclass(frozen=True)
class Open:
    """Send the request, keep its answer open for :class:`Read` → :class:`Reply`; a refusal is read whole."""

    request: HttpRequest


@dataclass(frozen=True)
class Read:
    """The next bytes of the open answer → ``bytes``, or ``None`` at its end."""


@dataclass(frozen=True)
class Close:
    """Close the open answer, if there is one."""


@dataclass(frozen=True)
class Sleep:
    """Wait so long."""

    seconds: float


@dataclass(frozen=True)
class Do:
    """Call this; it may block on a file → what it returns."""

    call: Callable[[], Any]


@dataclass(frozen=True)
class Emit:
    """Give this value to the caller, who iterates."""

    value: Any


Effect: TypeAlias = Send | Open | Read | Close | Sleep | Do | Emit
Operation: TypeAlias = Generator[Effect, Any, T]


@dataclass(frozen=True)
class Outcome:
    """What became of an effect: a value, or the error to raise where the operation waits."""

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class Done(Generic[T]):
    """The operation has ended with this value."""

    value: T


def advance(operation: Operation[T], outcome: Outcome) -> Effect | Done[T]:
    """Take the operation to its next effect. Raises what the operation raises."""
    try:
        if outcome.error is not None:
            return operation.throw(outcome.error)
        return operation.send(outcome.value)
    except StopIteration as stop:
        return Done(stop.value)
