"""Sends requests to the groups that answer them.

Gateways also send requests to workers, and workers to engines, in this way. So in this module, *group* also stands for
a worker or an engine.

An answer arrives in parts. The gateway reads a part from the network only when it has room for the part. So a slow
client slows down the group, and does not fill the memory of the gateway.

The errors say what a caller must know before it sends the request to another group::

    UpstreamError
    ├─ UnreachableError     no connection: the group has seen nothing of the request
    ├─ NoAnswerError        the connection ended before an answer had begun
    └─ AnswerCutOffError    the answer has begun and will not be complete, or is not valid HTTP

If an answer has a ``Content-Length`` above 0, it has begun when the first byte of its body has arrived. Any other
answer has begun when its head has arrived. The reason: servers write the head and then the body, and a server
that is killed in between has answered nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]
MAX_STALE = 3
"""How often a request may be sent again because an idle connection turned out to be closed. One more such connection
counts as a failure of the group."""


class UpstreamError(Exception):
    """A group gave no answer to a request, or only part of one."""


class UnreachableError(UpstreamError):
    """The group does not accept connections."""


class NoAnswerError(UpstreamError):
    """The connection ended before an answer.

    ``stale``: the connection had been idle, and the group may have closed it before the request arrived.
    """

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


class AnswerCutOffError(UpstreamError):
    """An answer has begun, but the rest is missing, the answer is not valid HTTP, or the head is too large."""


@dataclass(slots=True, kw_only=True)  # not frozen: objects of a frozen class take longer to create
class UpstreamRequest:
    """A request to a group."""

    method: bytes
    target: bytes
    """Path and query, percent-encoded."""
    headers: Headers
    """All headers except ``Host``, ``Content-Length`` and the headers that belong to one connection only."""
    body: bytes
    """The beginning of the body, or the whole body if ``rest`` is ``None``."""
    rest: AsyncIterator[bytes] | None = None
    """The parts of the body that follow ``body``."""
    length: int | None = None
    """Length of the whole body, if it is known."""


class UpstreamAnswer(Protocol):
    """An answer that has begun."""

    @property
    def status(self) -> int:
        """The status."""

    @property
    def headers(self) -> Headers:
        """The headers, with names in lower case, and without the headers that belong to one connection only."""

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read."""

    @property
    def available(self) -> bool:
        """Whether ``read`` returns a part of the body at once."""

    async def read(self) -> bytes:
        """The next part of the body; empty at the end of the body. :raises AnswerCutOffError:"""

    def close(self) -> None:
        """Drop the rest of the answer, so that the group stops working on it. Does nothing if the answer has
        ended."""


class Upstreams(Protocol):
    """Keeps connections to groups open, and sends requests over them."""

    async def send(self, endpoint: str, request: UpstreamRequest) -> UpstreamAnswer:
        """Send a request to ``http://host:port`` or ``https://host:port`` and wait until its answer has begun.

        Cancelling the call closes the connection. :raises UpstreamError:
        """

    def keep(self, endpoints: Sequence[str]) -> None:
        """Close the idle connections to all endpoints except these."""

    async def close(self) -> None:
        """Close all connections."""
