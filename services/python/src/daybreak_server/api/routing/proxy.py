"""Passes one request to a group, and the group's answer to the client.

1. The proxy reads the beginning of the body, which is nearly always the whole body.
2. The router gives the request a slot: at once, or after the request has waited in the line.
3. The proxy sends the request to the slot's group. If the group refuses it, cannot be reached, or breaks before the
   first byte of an answer, steps 2 and 3 are repeated with another group, or with the same one if there is no other.
   The client gets an error instead if a part of the body is no longer in memory, or if groups broke
   ``router.max_tries`` times. After the first byte of an answer, the request is not sent again.
4. The proxy passes on the answer part by part, no faster than the client reads
   (:class:`~.forwarded_answer.ForwardedAnswer`).

The deadline of the request bounds all steps together. If the client goes away, its request is cancelled. The group
notices this, because the proxy closes the connection to it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError, request_id_of
from daybreak_server.api.http.request_body import trace_context
from daybreak_server.api.routing.candidates import RoutingRequest
from daybreak_server.api.routing.client_watch import ClientWatch, WatchTimer
from daybreak_server.api.routing.failures import deadline_passed, group_failed, outcome_of, too_many_waiting
from daybreak_server.api.routing.forwarded_answer import ForwardedAnswer
from daybreak_server.api.routing.forwarding import (
    GROUP_ID_HEADER,
    Header,
    forwarded_headers,
    is_broken_worker,
    refusal_of,
    trace_headers,
)
from daybreak_server.api.routing.pool_router import (
    ClosingError,
    NoGroupError,
    PoolRouter,
    Slot,
    WaitedTooLongError,
)
from daybreak_server.api.routing.request_body import (
    BufferedBytes,
    BuffersFullError,
    ClientGoneError,
    ForwardedBody,
)
from daybreak_server.api.routing.waiting_line import LineFullError, Ticket
from daybreak_server.domain.serving_headers import CLIENT_GONE, DEADLINE_HEADER, SESSION_HEADER, Refusal
from daybreak_server.observability.router_metrics import RouterMetrics
from daybreak_server.ports.tracing import RequestTrace, Tracing
from daybreak_server.ports.upstreams import (
    MAX_STALE,
    AnswerCutOffError,
    NoAnswerError,
    UnreachableError,
    UpstreamAnswer,
    UpstreamError,
    UpstreamRequest,
    Upstreams,
)
from daybreak_server.settings.router import RouterSettings

log = logging.getLogger("daybreak.api.routing")

_DEADLINE, _SESSION = DEADLINE_HEADER.encode(), SESSION_HEADER.encode()


@dataclass(slots=True, kw_only=True)  # not frozen: objects of a frozen class take longer to create
class _Incoming:
    """A request that waits for its answer. ``headers`` are those that the group gets."""

    request: Request
    tenant: str
    target: bytes
    headers: list[Header]
    body: ForwardedBody
    watch: ClientWatch
    deadline: float
    trace: RequestTrace
    wakes: bool


class PoolProxy:
    """Answers the requests of one serving pool, or of one model of workers."""

    def __init__(
        self,
        *,
        pool: str,
        router: PoolRouter,
        upstreams: Upstreams,
        settings: RouterSettings,
        metrics: RouterMetrics,
        tracing: Tracing,
        in_memory: BufferedBytes,
        not_ready: Callable[[], ApiError],
        id_header: bytes = GROUP_ID_HEADER,
        headers: Sequence[Header] = (),
        withheld: Collection[bytes] = (),
        answer_headers: Sequence[Header] = (),
    ) -> None:
        """Prepare.

        :param not_ready: The error of a request that no group could take in time.
        :param id_header: The header with the group's id, in requests to the group and in answers to the client.
        :param headers: Sent to groups in place of the ``withheld`` headers; not sent if ``withheld`` is empty.
        :param withheld: Names of the client's headers that groups do not get.
        :param answer_headers: Headers that are added to each answer.
        """
        self.router = router
        self._metrics = metrics
        self._tracing = tracing
        self._pool = pool
        self._upstreams = upstreams
        self._settings = settings
        self._in_memory = in_memory
        self._not_ready = not_ready
        self._id_header = id_header
        self._headers = list(headers)
        self._withheld = frozenset(withheld)
        self._answer_headers = tuple(answer_headers)
        self._last_broken = ""
        self._watch_timer = WatchTimer()

    async def answer(
        self,
        request: Request,
        *,
        tenant: str,
        route: str,
        target: bytes,
        body: ForwardedBody | None = None,
        wakes: bool = True,
    ) -> Response:
        """The response to a request.

        :param route: The path of the route, for traces.
        :param target: The path and query that the group gets.
        :param body: The body, if its beginning has already been read.
        :param wakes: Whether the request may wait while the pool has no group. Its wait makes a group start.
        :raises ApiError: if there is no response.
        """
        began = asyncio.get_running_loop().time()
        watch: ClientWatch | None = None
        trace = self._tracing.request(
            trace_context(request),
            method=request.scope["method"],
            route=route,
            scheme=request.scope["scheme"],
            path=request.scope["path"],
            pool=self._pool,
            tenant=tenant,
        )
        try:
            deadline = began + self._seconds_left(request)
            watch = ClientWatch(request.receive, deadline=deadline, timer=self._watch_timer)
            incoming = _Incoming(
                request=request,
                tenant=tenant,
                target=target,
                headers=self._request_headers(request),
                body=body or self.new_body(request),
                watch=watch,
                deadline=deadline,
                trace=trace,
                wakes=wakes,
            )
            return await self._answer(incoming, began=began)
        except BaseException as exc:
            if watch is not None:
                watch.stop()
            if isinstance(exc, ClientGoneError) or (isinstance(exc, TimeoutError) and watch and watch.gone):
                self._metrics.ended("client_gone")
                trace.ended("client_gone", status=CLIENT_GONE)
                return Response(status_code=CLIENT_GONE)
            error = deadline_passed() if isinstance(exc, TimeoutError) else exc
            self._metrics.ended(outcome_of(error))
            trace.ended(outcome_of(error), status=error.status if isinstance(error, ApiError) else None)
            if isinstance(error, ApiError) and trace.context is not None:
                error.headers["traceparent"] = trace.context.traceparent
            raise error from exc.__cause__

    def new_body(self, request: Request) -> ForwardedBody:
        """The body of a request from which nothing has been read yet."""
        return ForwardedBody(request, max_bytes=self._settings.max_body_bytes, in_memory=self._in_memory)

    def _request_headers(self, request: Request) -> list[Header]:
        passed = forwarded_headers(request.scope["headers"], request_id=request_id_of(request.scope))
        if not self._withheld:
            return passed
        return [*(header for header in passed if header[0] not in self._withheld), *self._headers]

    async def _answer(self, incoming: _Incoming, *, began: float) -> Response:
        body, watch, trace = incoming.body, incoming.watch, incoming.trace
        try:
            if not body.begun:
                async with watch.block():
                    await body.read_beginning(self._settings.buffer_bytes)
            if body.complete:
                watch.start()
            answer, slot = await self._send(incoming)
        except BuffersFullError as exc:
            raise too_many_waiting("buffered_bytes") from exc
        finally:
            body.drop()
        watch.start()  # even if the body is incomplete: after an answer, nothing else reads the body
        self._metrics.first_byte(asyncio.get_running_loop().time() - began)
        trace.first_byte(answer.status)

        def ended(outcome: str) -> None:
            self._metrics.ended(outcome)
            trace.ended(outcome)

        return ForwardedAnswer(
            answer,
            slot,
            watch,
            pool=self._pool,
            ended=ended,
            context=trace.context,
            headers=((self._id_header, slot.group.id.encode()), *self._answer_headers),
        )

    def _seconds_left(self, request: Request) -> float:
        for name, value in request.scope["headers"]:
            if name == _DEADLINE:
                seconds = _number(value)
                if math.isnan(seconds):
                    raise ApiError(
                        ErrorCode.BAD_HEADER,
                        "The header Daybreak-Deadline-S is not valid. Send a number of seconds, such as 30.",
                    )
                if seconds <= 0:
                    raise ApiError(
                        ErrorCode.DEADLINE_PASSED,
                        "The deadline passed before the request arrived. Allow more time.",
                    )
                return min(seconds, self._settings.timeout_s)
        return self._settings.timeout_s

    async def _send(self, incoming: _Incoming) -> tuple[UpstreamAnswer, Slot]:
        """Send the request to one group after another, until a group answers it."""
        body = incoming.body
        request = self._routing_request(incoming.request, body)
        ticket = Ticket(tenant=incoming.tenant, request=request, wakes=incoming.wakes)
        stale = 0
        while True:
            slot = self.router.acquire_now(ticket) or await self._wait(ticket, incoming)
            try:
                answer = await self._attempt(slot, incoming)
            except UnreachableError as exc:
                if self.router.unreachable(slot):
                    log.warning("pool %s: group %s is out: %s", self._pool, slot.group.id, exc)
                self._retried("unreachable", incoming)
                continue
            except NoAnswerError as exc:
                stale += exc.stale
                if exc.stale and stale <= MAX_STALE:
                    slot.release()
                else:
                    self._warn_once(slot, exc)
                    self.router.broke(slot, ticket)
                incoming.trace.not_answered("no_answer")
                self._check_retry(ticket, body, exc)
                self._metrics.retried("no_answer")
                continue
            except AnswerCutOffError as exc:
                slot.release()
                raise group_failed(slot.group.id, exc) from exc
            except BaseException:
                slot.release()
                raise
            refusal = refusal_of(answer)
            if refusal is None:
                self.router.answered(slot)
                return answer, slot
            answer.close()
            leaves = refusal != Refusal.BUSY
            self.router.refused(slot, leaves=leaves)
            self._retried("leaves" if leaves else "busy", incoming)
            if body.passed_on:
                raise ApiError(
                    ErrorCode.NOT_READY,
                    "The group refused the request while the body was being sent. The body is too large to be sent "
                    "again from memory. Retry.",
                    retry_after_s=1.0,
                )

    async def _wait(self, ticket: Ticket, incoming: _Incoming) -> Slot:
        watch, deadline = incoming.watch, incoming.deadline
        began, began_ns, granted = asyncio.get_running_loop().time(), time.time_ns(), False
        try:
            async with watch.block():
                slot = await self.router.acquire(ticket, deadline=deadline)
            granted = True
            return slot
        except (WaitedTooLongError, NoGroupError, TimeoutError) as exc:
            if watch.gone:
                raise ClientGoneError from exc
            raise self._not_ready() from exc
        except LineFullError as exc:
            raise too_many_waiting(exc.limit) from exc
        except ClosingError as exc:
            raise ApiError(
                ErrorCode.SHUTTING_DOWN, "The server is shutting down. Send the request to another one."
            ) from exc
        finally:
            self._metrics.waited(asyncio.get_running_loop().time() - began)
            incoming.trace.waited(began_ns=began_ns, granted=granted)

    async def _attempt(self, slot: Slot, incoming: _Incoming) -> UpstreamAnswer:
        """Send the request once, and wait for the head of the answer.

        :raises UpstreamError: if the group gave no answer
        :raises TimeoutError: if the deadline passed, or the client went away, before the head arrived
        :raises ClientGoneError: if the client went away while its body was read
        """
        request, body, watch = incoming.request, incoming.body, incoming.watch
        context = incoming.trace.sent(slot.group.id, slot.group.endpoint)
        left_s = max(0.0, incoming.deadline - asyncio.get_running_loop().time())
        upstream_request = UpstreamRequest(
            method=request.scope["method"].encode(),
            target=incoming.target,
            headers=[
                *trace_headers(incoming.headers, context),
                (_DEADLINE, b"%.3f" % left_s),
                (self._id_header, slot.group.id.encode()),
            ],
            body=body.buffered,
            rest=body.rest,
            length=body.length,
        )
        block = watch.block()
        slot.on_lost = block.interrupt
        try:
            async with block:
                answer = await self._upstreams.send(slot.group.endpoint, upstream_request)
        except TimeoutError as exc:
            if slot.lost and not watch.gone:
                raise NoAnswerError("its lease has ended") from exc
            raise
        if refusal_of(answer) == Refusal.BROKEN or is_broken_worker(answer):
            answer.close()
            raise NoAnswerError("it broke while it had the request")
        return answer

    def _retried(self, reason: str, incoming: _Incoming) -> None:
        self._metrics.retried(reason)
        incoming.trace.not_answered(reason)

    def _check_retry(self, ticket: Ticket, body: ForwardedBody, cause: UpstreamError) -> None:
        """Check whether the request may be sent again. :raises ApiError: if not."""
        if body.passed_on:
            raise ApiError(
                ErrorCode.GROUP_FAILED,
                "The group failed before it answered, and the body is too large to be sent again from memory. Retry.",
            ) from cause
        if ticket.breaks >= self._settings.max_tries:
            raise ApiError(
                ErrorCode.GROUP_FAILED,
                f"Groups failed {ticket.breaks} times while they had this request, so it is not sent again.",
            ) from cause

    def _warn_once(self, slot: Slot, cause: UpstreamError) -> None:
        """Log once that a group broke, and not again for each request that the group had."""
        if slot.group.id != self._last_broken:
            self._last_broken = slot.group.id
            log.warning("pool %s: group %s gave no answer: %s", self._pool, slot.group.id, cause)

    def _routing_request(self, request: Request, body: ForwardedBody) -> RoutingRequest:
        session = None
        for name, value in request.scope["headers"]:
            if name == _SESSION:
                session = value
        return RoutingRequest(session=session, prefix=body.buffered[: self._settings.prefix_bytes])


def _number(value: bytes) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan
