"""The interface of a workload that answers requests, for pools of the kind ``online``.

``load`` and ``warm_up`` are as in :mod:`~daybreak_server.workloads.base`. ``serve`` answers one HTTP request
with a :class:`Response`, or with an iterator of bytes. Each part that the iterator produces is sent at once.

Threads. In a group of one rank, several requests run at once, up to the pool's capacity, each on its own thread. With
a capacity of 1, ``serve`` is never called while another call runs. In a group of several ranks, one request runs at a
time, and every rank calls ``serve`` with the same request, so ``serve`` may use collectives. Clients get the leader's
answer. The answers of the other ranks are dropped, so these ranks may yield ``b""``. All ranks must produce the same
number of parts, because they agree after each part whether to continue.

Errors. Raise :class:`RequestError` to answer with a status of your choice. After any other exception the answer is 500.
If a part of the answer has already been sent, no status can follow. The connection is then closed, so that the client
sees that the answer is incomplete.

Cancelling. When the client has gone, the deadline has passed, or the group leaves or restarts, the iterator is closed
after its present part: ``GeneratorExit`` is raised at the ``yield``. An empty part (``b""``) sends nothing, so a
workload can yield an empty part at any point at which a cancelled request may stop. In a group of one rank, code that
computes for long without a ``yield`` can call :attr:`Request.cancelled`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from daybreak_server.workloads.base import Group, WorkloadError
from daybreak_server.workloads.json_value import json_value


class RequestError(WorkloadError):
    """The request cannot be answered as it is. The client gets ``status`` with the message."""

    code = "request_refused"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """``field``: the part of the body that is wrong. ``retry_after_s``: when to send the request again."""
        super().__init__(message, code=code)
        self.status = status
        self.field = field
        self.retry_after_s = retry_after_s


class CountTokens(Protocol):
    """The type of :attr:`Request.count_tokens`."""

    def __call__(self, *, input: int = 0, output: int = 0) -> None:
        """Count tokens."""


def _count_nothing(*, input: int = 0, output: int = 0) -> None:
    return None


def never() -> bool:
    """Return ``False``: the request is not cancelled."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request."""

    method: str
    path: str
    """Begins with ``/``. Percent-encoded characters are decoded."""
    query: str = ""
    """What follows ``?`` in the URL, still encoded."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The values by lower-case name. If a header is repeated, its values are joined by commas."""
    body: bytes = b""
    deadline: float | None = None
    """The time of ``time.monotonic()`` after which nobody waits for the answer. It differs a little between ranks."""
    cancelled: Callable[[], bool] = never
    """Returns whether nobody waits for the answer any more. Each call also shows that the work advances, so a workload
    that computes for longer than ``lease.stall_s`` without yielding a part must call this. In a group of several ranks
    it always returns ``False``, because these ranks may stop only together: there, yield instead."""

    count_tokens: CountTokens = _count_nothing
    """Report how many tokens the workload has read or produced for this request since the last call:
    ``request.count_tokens(input=12)``, ``request.count_tokens(output=1)``. The numbers feed only a metric. Calls on
    ranks other than the leader count nothing."""

    def json(self) -> Any:
        """The body as JSON. :raises RequestError: 400 if the body is not JSON, and 415 if it is compressed."""
        encoding = self.headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in {"", "identity"}:
            message = (
                f"the Content-Encoding {encoding[:40]!r} is not supported here; send the body uncompressed"
            )
            raise RequestError(415, message, code="unsupported_media_type")
        try:
            return json_value(self.body)
        except ValueError as exc:
            raise RequestError(400, f"the body is not JSON: {exc}", code="invalid_json") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer. ``body`` is sent at once, or part by part if it is an iterable of bytes."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""

    @classmethod
    def of_json(cls, value: Any, *, status: int = 200) -> Response:
        """An answer with a value as JSON."""
        body = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
        return cls(status=status, headers={"content-type": "application/json"}, body=body)


class ServingWorkload(Protocol):
    """A workload that answers requests. Each rank of a group has one such object, for as long as the group lives.

    A workload may have an attribute ``models``: the names of the models that it serves, as clients call them. After
    ``warm_up``, the names must not change.

    A workload that batches requests may have a method ``set_batching(settings)``. ``settings`` is a mapping. It has
    those entries of the pool's setting ``batching`` that an administrator has changed. The leader calls the method
    while the group runs, whenever these entries change. The method must not raise.
    """

    def load(self, group: Group) -> None:
        """Load the model. Called once, on every rank."""

    def warm_up(self) -> None:
        """Do work that would otherwise slow down the first request. Called once, on every rank, after ``load``."""

    def serve(self, request: Request) -> Response | Iterable[bytes]:
        """Answer one request. Called on every rank."""
