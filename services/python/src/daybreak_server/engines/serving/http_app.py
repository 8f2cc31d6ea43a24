"""The ASGI app of a leader: one coroutine for each request, from its head to the last byte of the answer.

1. A request is refused before its body is read if its deadline has passed (504). It is also refused if the group is
   full or drains, or if the request is for another group (503 with ``Daybreak-Refused``). The workload does not
   see a refused request.
2. The body is read, unless it is too large (413) or too slow (408). The request is then passed to the workload as an
   :class:`Exchange`.
3. The parts of the answer are sent to the client as they arrive. ``send`` waits while the client does not
   read, and then the workload waits too.

The exchange is stopped if the client closes the connection or reads nothing for :data:`SLOW_CLIENT_S`, if the deadline
passes, if the workload stalls, or if the group leaves or breaks. If no byte has been sent, a client that still waits
gets an error. If a part of the answer has been sent, the connection is closed before the end, so that no client takes
this part for the whole answer. The client is usually a gateway.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from daybreak_server.domain import policy
from daybreak_server.domain.serving_headers import DEADLINE_HEADER, GROUP_HEADER, REFUSED_HEADER, Refusal
from daybreak_server.engines.serving.admission import Admission
from daybreak_server.engines.serving.answer_parts import AnswerPart, problem, problem_headers
from daybreak_server.engines.serving.exchange import Exchange, Stop
from daybreak_server.engines.serving.request_metrics import RequestMetrics, RequestOutcome
from daybreak_server.workloads.serving import Request

_log = logging.getLogger(__name__)
SLOW_CLIENT_S = 60.0
"""A client that reads nothing for this long is disconnected. One that sends nothing of its body gets an error (408)."""
MAX_BODY_BYTES = policy.REQUEST_BODY_MAX_BYTES
_REFUSED = {
    Refusal.BUSY: "This group holds as many requests as its capacity. Try another group.",
    Refusal.DRAINING: "This group takes no more requests. Try another group.",
    Refusal.BROKEN: "This group broke before the request was answered. Try another group.",
    Refusal.OTHER: "The group of this request has left, and another one has its address. Try another group.",
}
AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]


class _ClientGoneError(Exception):
    """The client has closed the connection, or reads nothing."""


class _ProblemError(Exception):
    """The request gets an error instead of an answer."""

    def __init__(
        self,
        outcome: RequestOutcome,
        status: int,
        code: str,
        detail: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.status = status
        self.body = problem(status, code, detail)
        self.headers = (*problem_headers(self.body), *headers)


class ServingApp:
    """The app. ``accept`` gets each admitted request, and returns at once."""

    def __init__(
        self,
        admission: Admission,
        accept: Callable[[Exchange], None],
        *,
        group: str = "",
        metrics: RequestMetrics | None = None,
    ) -> None:
        self._admission = admission
        self._accept = accept
        self._group = group
        self._metrics = metrics or RequestMetrics()
        self._exchanges: set[Exchange] = set()

    @property
    def exchanges(self) -> frozenset[Exchange]:
        """The requests that the group holds: they wait, are being answered, or still run after their client has gone.

        Requests whose body is still being read are not among them. Other threads may call this.
        """
        return frozenset(self._exchanges.copy())

    async def __call__(self, scope: AsgiMessage, receive: Receive, send: Send) -> None:
        """Answer one request. The arguments are those of an ASGI application."""
        if scope["type"] != "http":
            return
        began = time.monotonic()
        outcome = RequestOutcome.GONE
        try:
            request = await self._admitted(scope, receive)
            outcome = await self._answer(request, receive, send, began)
        except _ProblemError as found:
            outcome = found.outcome
            await _send_problem(send, found)
        except _ClientGoneError:
            pass
        finally:
            self._metrics.ended(outcome, began)

    async def _admitted(self, scope: AsgiMessage, receive: Receive) -> Request:
        """Admit a request, so that it counts against the capacity, and return it with its body.

        :raises _ProblemError: if the request is refused.
        :raises _ClientGoneError: if the client closes the connection.
        """
        headers = _headers(scope)
        deadline = _deadline(headers)
        if deadline is not None and deadline <= time.monotonic():
            raise _expired()
        if headers.get(GROUP_HEADER, self._group) != self._group:
            raise _refused(Refusal.OTHER)
        refusal = self._admission.admit()
        if refusal is not None:
            raise _refused(refusal)
        try:
            body = await _read_body(receive, deadline)
        except BaseException:
            self._admission.release()
            raise
        return Request(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers=headers,
            body=body,
            deadline=deadline,
            count_tokens=self._metrics.count_tokens,
        )

    async def _answer(self, request: Request, receive: Receive, send: Send, began: float) -> RequestOutcome:
        """Run the request and send its answer.

        :raises _ProblemError: if there is no answer, and nothing has been sent.
        """
        exchange = Exchange(request, loop=asyncio.get_running_loop(), on_left=self._on_left)
        self._exchanges.add(exchange)
        watcher = asyncio.create_task(_watch(receive, exchange))
        try:
            try:
                self._accept(exchange)
            except BaseException:
                exchange.abandon()  # no thread has taken it
                raise
            return await self._stream(exchange, send, began)
        except BaseException:
            exchange.stop(Stop.GONE)  # the rest of the answer will not be sent
            raise
        finally:
            watcher.cancel()
            exchange.leave_loop()

    async def _stream(self, exchange: Exchange, send: Send, began: float) -> RequestOutcome:
        """Send the parts of the answer as they arrive.

        :raises _ProblemError: if there is no answer, and nothing has been sent.
        :raises _ClientGoneError: if the client has gone or does not read.
        """
        started = False
        while True:
            parts = await _receive(exchange)
            if parts and not started:
                started = True
                head = parts[0].head
                assert head is not None
                start = {"type": "http.response.start", "status": head.status, "headers": head.headers}
                await _send(send, start)
                self._metrics.first_byte(began)
            if started and exchange.complete:
                await _send_body(send, parts, more=False)
                return RequestOutcome.ANSWERED
            if parts:
                await _send_body(send, parts, more=True)
                continue
            reason = _why_none(exchange)
            if reason is None:
                raise _ClientGoneError
            if not started:
                raise reason
            # The HTTP server closes the connection, because this app has not sent the end of the answer.
            _log.warning("an answer is cut off in the middle: %s", reason)
            return reason.outcome

    def _on_left(self, exchange: Exchange) -> None:
        self._exchanges.discard(exchange)
        self._admission.release()


async def _receive(exchange: Exchange) -> Sequence[AnswerPart]:
    """Wait for parts. The result is empty if there will be no more parts, or the deadline has passed."""
    try:
        async with asyncio.timeout_at(_on_loop_clock(exchange.request.deadline)):
            return await exchange.receive()
    except TimeoutError:
        exchange.stop(Stop.DEADLINE)
        return ()


def _why_none(exchange: Exchange) -> _ProblemError | None:
    """Why there is no answer, or why the rest of the answer is missing. ``None`` if the client has disconnected."""
    if exchange.failed is not None:
        return _ProblemError(RequestOutcome.FAILED, 500, exchange.failed.code, exchange.failed.message)
    match exchange.stopped:
        case Stop.STALLED:
            return _ProblemError(
                RequestOutcome.FAILED, 500, "stalled", "The workload showed no progress with this request."
            )
        case Stop.DEADLINE:
            return _expired()
        case Stop.LEAVING:
            return _refused(Refusal.DRAINING)
        case Stop.BROKEN:
            return _refused(Refusal.BROKEN)
        case _:
            return None


async def _watch(receive: Receive, exchange: Exchange) -> None:
    """Stop the exchange when the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.stop(Stop.GONE)


async def _read_body(receive: Receive, deadline: float | None) -> bytes:
    """Return the body.

    :raises _ProblemError: if it is too large or too slow.
    :raises _ClientGoneError: if the client closes the connection.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout(min(SLOW_CLIENT_S, _remaining_s(deadline))):
                message = await receive()
        except TimeoutError:
            detail = "The body did not arrive in time."
            raise _ProblemError(RequestOutcome.INVALID, 408, "slow_request", detail) from None
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        data = message.get("body", b"")
        size += len(data)
        if size > MAX_BODY_BYTES:
            detail = f"The body is larger than {MAX_BODY_BYTES} bytes."
            raise _ProblemError(RequestOutcome.INVALID, 413, "body_too_large", detail)
        parts.append(data)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _send(send: Send, message: AsgiMessage) -> None:
    try:
        async with asyncio.timeout(SLOW_CLIENT_S):
            await send(message)
    except TimeoutError:
        _log.warning("a client has read nothing for %g s; its request is cancelled", SLOW_CLIENT_S)
        raise _ClientGoneError from None


async def _send_body(send: Send, parts: Sequence[AnswerPart], *, more: bool) -> None:
    data = b"".join(part.data for part in parts)
    await _send(send, {"type": "http.response.body", "body": data, "more_body": more})


async def _send_problem(send: Send, found: _ProblemError) -> None:
    await send({"type": "http.response.start", "status": found.status, "headers": found.headers})
    await send({"type": "http.response.body", "body": found.body, "more_body": False})


def _refused(refusal: Refusal) -> _ProblemError:
    headers: tuple[tuple[bytes, bytes], ...] = ((REFUSED_HEADER.encode(), refusal.encode()),)
    if refusal is not Refusal.BUSY:
        headers += ((b"connection", b"close"),)
    return _ProblemError(RequestOutcome(refusal), 503, f"group_{refusal}", _REFUSED[refusal], headers)


def _expired() -> _ProblemError:
    detail = "The deadline of the request passed before it was answered."
    return _ProblemError(RequestOutcome.DEADLINE, 504, "deadline_passed", detail)


def _headers(scope: AsgiMessage) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _deadline(headers: MutableMapping[str, str]) -> float | None:
    """The deadline in monotonic seconds. :raises _ProblemError: if the header is no number."""
    stated = headers.get(DEADLINE_HEADER)
    if stated is None:
        return None
    try:
        seconds = float(stated)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        detail = f"The header {DEADLINE_HEADER} must be a number of seconds, not {stated[:40]!r}."
        raise _ProblemError(RequestOutcome.INVALID, 400, "invalid_deadline", detail)
    return None if seconds == math.inf else time.monotonic() + seconds


def _remaining_s(deadline: float | None) -> float:
    return math.inf if deadline is None else max(0.0, deadline - time.monotonic())


def _on_loop_clock(deadline: float | None) -> float | None:
    """The deadline on the clock of the event loop, which need not be ``time.monotonic``."""
    return None if deadline is None else asyncio.get_running_loop().time() + _remaining_s(deadline)
