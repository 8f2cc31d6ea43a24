"""The effects that operations yield, and :func:`step`, with which a client drives an operation.

An :data:`Operation` is a generator that sends nothing itself. It yields an effect, such as "send this request"; the
client performs the effect and passes the :class:`Outcome` to :func:`step`, which resumes the generator until its next
effect.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")

RESPONSE_TIMEOUT_S = 30.0
STREAM_TIMEOUT_S = 40.0
"""The server sends a heartbeat every 15 s. If two are missing, the connection is dead."""


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """An HTTP request. ``path`` is relative to the server's URL and already quoted."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any | None = None
    read_timeout_s: float = RESPONSE_TIMEOUT_S
    """The request fails if no byte arrives for this long."""
    follow_redirects: bool = False


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An HTTP response. Header names are in lower case. ``body`` is empty if :class:`Read` will read the body."""

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

    The body of an error response is read at once.
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
    """Wait for this many seconds."""

    seconds: float


@dataclass(frozen=True)
class RunBlocking:
    """Run a function that may block on a file, and return its result. The asyncio client runs it in a thread."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Emit:
    """Yield this value to the caller, who iterates over the operation's results."""

    value: Any


Effect: TypeAlias = Send | Open | Read | Close | Sleep | RunBlocking | Emit
Operation: TypeAlias = Generator[Effect, Any, T]


@dataclass(frozen=True)
class Outcome:
    """The result of an effect: a value, or the error to raise inside the operation."""

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class Done(Generic[T]):
    """The operation has ended with this value."""

    value: T


def step(operation: Operation[T], outcome: Outcome) -> Effect | Done[T]:
    """Resume the operation with the outcome of its last effect, until its next effect or its end.

    Raises what the operation raises.
    """
    try:
        if outcome.error is not None:
            return operation.throw(outcome.error)
        return operation.send(outcome.value)
    except StopIteration as stop:
        return Done(stop.value)
