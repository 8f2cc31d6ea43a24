"""Sends requests to the groups that answer them.

Gateways also send requests to workers, and workers to engines, in this way: here, *group* also stands for a worker or
an engine.

An answer arrives in parts. A part is read from the network only when there is room for it. So a slow client slows down
its group instead of filling the memory of the gateway.

The errors say what a caller must know before it sends the request to another group::

    UpstreamError
    ├─ UnreachableError     no connection: the group has seen nothing of the request
    ├─ NoAnswerError        the connection ended before an answer had begun
    └─ AnswerCutOffError    the answer has begun and will not be complete, or is not valid HTTP

An answer with a ``Content-Length`` above 0 counts as begun with the first byte of its body, any other with its head:
servers write head and body one after the other, and a server that is killed in between has answered nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]


class UpstreamError(Exception):
    """A group did not answer a request, or not completely."""


class UnreachableError(UpstreamError):
    """The group does not accept connections."""


class NoAnswerError(UpstreamError):
    """The connection ended before an answer.

    ``stale``: it was an idle connection that the group may have closed before the request came.
    """

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


class AnswerCutOffError(UpstreamError):
    """An answer has begun, but its rest is missing, it is not valid HTTP, or its head is too large."""


@dataclass(slots=True, kw_only=True)  # not frozen: objects of a frozen class take longer to create
class UpstreamRequest:
    """A request to a group."""

    method: bytes
    target: bytes
    """Path and query, percent-encoded."""
    headers: Headers
    """All headers except ``Host``, ``Content-Length`` and those of the connection."""
    body: bytes
    """The beginning of the body; all of it unless there is a ``rest``."""
    rest: AsyncIterator[bytes] | None = None
    length: int | None = None
    """Length of the whole body, if it is known."""


class UpstreamAnswer(Protocol):
    """An answer that has begun."""

    @property
    def status(self) -> int:
        """The status."""

    @property
    def headers(self) -> Headers:
        """The headers, with names in lower case and without those of the connection."""

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read."""

    @property
    def available(self) -> bool:
        """Whether ``read`` returns a part of the body at once."""

    async def read(self) -> bytes:
        """The next part of the body; empty at its end. :raises AnswerCutOffError:"""

    def close(self) -> None:
        """Drop the rest of the answer, so that the group stops working on it. Does nothing after the end."""


class Upstreams(Protocol):
    """Keeps connections to groups open, and sends requests over them."""

    async def send(self, endpoint: str, request: UpstreamRequest) -> UpstreamAnswer:
        """Send a request to ``http://host:port`` or ``https://host:port`` and wait until its answer has begun.

        Cancelling the call closes the connection. :raises UpstreamError:
        """

    def keep(self, endpoints: Sequence[str]) -> None:
        """Close idle connections to all other endpoints."""

    async def close(self) -> None:
        """Close all connections."""
