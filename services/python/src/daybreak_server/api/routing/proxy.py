"""Passes one request to a group and its answer to the client.

1. The beginning of the body is read, which is nearly always all of it.
2. The router gives the request a slot: at once, or after it has waited in the line.
3. The request is sent to the slot's group. If the group refuses it, cannot be reached, or breaks before the first byte
   of an answer, steps 2 and 3 follow for another group. After the first byte there is no second try.
4. The answer is passed on part by part (:class:`ForwardedAnswer`), no faster than the client reads.

The deadline of the request bounds all steps together. If the client goes away, its request is cancelled, and the closed
connection tells the group.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from daybreak.wire import ErrorCode
from daybreak_server.api import serializers
from daybreak_server.api.errors import ApiError, request_id_of
from daybreak_server.api.routing.candidates import RoutingRequest
from daybreak_server.api.routing.forwarding import (
    BUSY,
    GROUP_HEADER,
    SET_BY_GATEWAY,
    forwarded_headers,
    refusal_of,
    target_of,
)
from daybreak_server.api.routing.interruption import ClientWatch
from daybreak_server.api.routing.pool_router import ClosingError, PoolRouter, Slot, WaitedTooLongError
from daybreak_server.api.routing.request_body import ClientGoneError, ForwardedBody
from daybreak_server.api.routing.waiting_line import LineFullError, Ticket
from daybreak_server.observability.router_metrics import RouterMetrics
from daybreak_server.ports.upstreams import (
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

DEADLINE_HEADER = b"daybreak-deadline-s"
SESSION_HEADER = b"daybreak-session"
CLIENT_GONE = 499
"""The status in metrics of a request whose client did not wait for the answer."""
MAX_STALE = 3
"""How many idle connections that turn out to be closed are replaced before it counts as a failure of the group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Incoming:
    """A request that is to be answered. ``headers`` are those that are passed on."""

    request: Request
    tenant: str
    headers: list[tuple[bytes, bytes]]
    body: ForwardedBody
    watch: ClientWatch
    deadline: float


class Proxy:
    """Answers the requests of one pool."""

    def __init__(
        self,
        *,
        pool: str,
        router: PoolRouter,
        upstreams: Upstreams,
        settings: RouterSettings,
        metrics: RouterMetrics,
        now_ms: Callable[[], int],
    ) -> None:
        self.router = router
        self._metrics = metrics
        self._pool = pool
        self._upstreams = upstreams
        self._settings = settings
        self._now_ms = now_ms
        self._buffered_bytes = 0
        self._last_broken = ""

    async def answer(self, request: Request, *, tenant: str) -> Response:
        """The response to a request. :raises ApiError: if there is none."""
        began = asyncio.get_running_loop().time()
        watch: ClientWatch | None = None
        try:
            deadline = began + self._seconds_left(request)
            watch = ClientWatch(request.receive, deadline=deadline)
            return await self._answer(request, watch, tenant=tenant, began=began, deadline=deadline)
        except BaseException as exc:
            if watch is not None:
                watch.stop()
            if isinstance(exc, ClientGoneError) or (isinstance(exc, TimeoutError) and watch and watch.gone):
                self._metrics.ended("client_gone")
                return Response(status_code=CLIENT_GONE)
            error = _deadline_passed() if isinstance(exc, TimeoutError) else exc
            self._metrics.ended(error.code if isinstance(error, ApiError) else "cancelled")
            raise error from exc.__cause__

    async def _answer(
        self, request: Request, watch: ClientWatch, *, tenant: str, began: float, deadline: float
    ) -> Response:
        body = ForwardedBody(request, max_bytes=self._settings.max_body_bytes)
        async with watch.block():
            await body.read_beginning(self._settings.buffer_bytes)
        if body.complete:
            watch.start()
        if self._buffered_bytes + len(body.buffered) > self._settings.max_buffered_bytes:
            raise _full("buffered_bytes")
        self._buffered_bytes += len(body.buffered)
        incoming = _Incoming(
            request=request,
            tenant=tenant,
            headers=forwarded_headers(request.scope["headers"], request_id=request_id_of(request.scope)),
            body=body,
            watch=watch,
            deadline=deadline,
        )
        try:
            answer, slot = await self._send(incoming)
        finally:
            self._buffered_bytes -= len(body.buffered)
        if body.complete:
            watch.start()
        self._metrics.first_byte(asyncio.get_running_loop().time() - began)
        return ForwardedAnswer(answer, slot, watch, pool=self._pool, ended=self._metrics.ended)

    def _seconds_left(self, request: Request) -> float:
        for name, value in request.scope["headers"]:
            if name == DEADLINE_HEADER:
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
        """Send the request to one group after the other, until one answers it."""
        body = incoming.body
        ticket = Ticket(tenant=incoming.tenant, request=self._routing_request(incoming.request, body))
        stale = 0
        while True:
            slot = self.router.acquire_now(ticket) or await self._wait(ticket, incoming)
            try:
                answer = await self._attempt(slot, incoming)
            except UnreachableError as exc:
                if self.router.unreachable(slot):
                    log.warning("pool %s: group %s is out: %s", self._pool, slot.group.id, exc)
                self._metrics.retried("unreachable")
                continue
            except NoAnswerError as exc:
                slot.release()
                stale += exc.stale
                if not exc.stale or stale > MAX_STALE:
                    self._warn_once(slot, exc)
                    ticket.broke.add(slot.group.id)
                self._check_retry(ticket, body, exc)
                self._metrics.retried("no_answer")
                continue
            except AnswerCutOffError as exc:
                slot.release()
                raise _group_failed(slot, exc) from exc
            except BaseException:
                slot.release()
                raise
            refusal = refusal_of(answer)
            if refusal is None:
                self.router.answered(slot)
                return answer, slot
            answer.close()
            leaves = refusal != BUSY
            self.router.refused(slot, leaves=leaves)
            self._metrics.retried("leaves" if leaves else "busy")
            if body.passed_on:
                raise ApiError(
                    ErrorCode.NOT_READY,
                    "The group became full while it was sent the body, which is too large to be sent again from "
                    "memory. Retry.",
                    retry_after_s=1.0,
                )

    async def _wait(self, ticket: Ticket, incoming: _Incoming) -> Slot:
        watch, deadline = incoming.watch, incoming.deadline
        began = asyncio.get_running_loop().time()
        try:
            async with watch.block():
                return await self.router.acquire(ticket, deadline=deadline)
        except (WaitedTooLongError, TimeoutError) as exc:
            if watch.gone:
                raise ClientGoneError from exc
            raise self._not_ready() from exc
        except LineFullError as exc:
            raise _full(exc.limit) from exc
        except ClosingError as exc:
            raise ApiError(
                ErrorCode.SHUTTING_DOWN, "The server is shutting down. Send the request to another one."
            ) from exc
        finally:
            self._metrics.waited(asyncio.get_running_loop().time() - began)

    async def _attempt(self, slot: Slot, incoming: _Incoming) -> UpstreamAnswer:
        """Send the request once, and wait for the head of the answer.

        :raises UpstreamError: TimeoutError: ClientGoneError:
        """
        request, body, watch = incoming.request, incoming.body, incoming.watch
        left_s = max(0.0, incoming.deadline - asyncio.get_running_loop().time())
        upstream_request = UpstreamRequest(
            method=request.scope["method"].encode(),
            target=target_of(request.scope, self._pool),
            headers=[
                *incoming.headers,
                (DEADLINE_HEADER, b"%.3f" % left_s),
                (GROUP_HEADER, slot.group.id.encode()),
            ],
            body=body.buffered,
            rest=body.rest,
            length=body.length,
        )
        block = watch.block()
        slot.on_lost = block.interrupt
        try:
            async with block:
                return await self._upstreams.send(slot.group.endpoint, upstream_request)
        except TimeoutError as exc:
            if slot.lost and not watch.gone:
                raise NoAnswerError("its lease has ended") from exc
            raise

    def _check_retry(self, ticket: Ticket, body: ForwardedBody, cause: UpstreamError) -> None:
        """Check whether the request may be sent again. :raises ApiError: if not."""
        if body.passed_on:
            raise ApiError(
                ErrorCode.GROUP_FAILED,
                "The group failed before it answered, and the body is too large to be sent again from memory. Retry.",
            ) from cause
        if len(ticket.broke) >= self._settings.max_tries:
            raise ApiError(
                ErrorCode.GROUP_FAILED,
                f"{len(ticket.broke)} groups failed while they had this request, so it is not sent to another one.",
            ) from cause

    def _warn_once(self, slot: Slot, cause: UpstreamError) -> None:
        """Log that a group broke; not once more for each request that it had."""
        if slot.group.id != self._last_broken:
            self._last_broken = slot.group.id
            log.warning("pool %s: group %s gave no answer: %s", self._pool, slot.group.id, cause)

    def _routing_request(self, request: Request, body: ForwardedBody) -> RoutingRequest:
        session = None
        for name, value in request.scope["headers"]:
            if name == SESSION_HEADER:
                session = value
        return RoutingRequest(session=session, prefix=body.buffered[: self._settings.prefix_bytes])

    def _not_ready(self) -> ApiError:
        """No group took the request in time: the pool is waking, or all groups are full."""
        if self.router.groups:
            return ApiError(
                ErrorCode.NOT_READY,
                f"All groups of the pool {self._pool} are busy. Retry later, or allow more time.",
                retry_after_s=1.0,
            )
        wake = serializers.wake(self.router.view, self._now_ms()) or {}
        phase, eta_s = wake.get("phase"), wake.get("eta_s")
        progress = f" Its wake is in the phase {phase}." if phase else ""
        estimate = f" A group should be ready in about {eta_s:.0f} s." if eta_s is not None else ""
        return ApiError(
            ErrorCode.NOT_READY,
            f"No group of the pool {self._pool} is ready.{progress}{estimate} Retry later, or allow more time.",
            retry_after_s=max(1.0, eta_s or 5.0),
            wake=wake or None,
        )


class ForwardedAnswer(Response):
    """The answer of a group, passed on as it arrives."""

    def __init__(
        self,
        answer: UpstreamAnswer,
        slot: Slot,
        watch: ClientWatch,
        *,
        pool: str,
        ended: Callable[[str], None],
    ) -> None:
        self.status_code = answer.status
        self.background = None
        self.body = b""
        self.raw_headers = [header for header in answer.headers if header[0] not in SET_BY_GATEWAY]
        self.raw_headers.append((GROUP_HEADER, slot.group.id.encode()))
        self._answer = answer
        self._slot = slot
        self._watch = watch
        self._pool = pool
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer. If it breaks off, return without its end, and the server closes the connection."""
        outcome = "cut_off"
        try:
            async with self._watch.block():
                await self._send_all(send)
            outcome = "answered"
        except AnswerCutOffError as exc:
            log.warning("pool %s: group %s broke off its answer: %s", self._pool, self._slot.group.id, exc)
        except TimeoutError:
            outcome = "client_gone" if self._watch.gone else ErrorCode.DEADLINE_PASSED
        finally:
            self._ended(outcome)
            self._watch.stop()
            self._answer.close()
            self._slot.release()

    async def _send_all(self, send: Send) -> None:
        part = await self._answer.read() if self._answer.available else None
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if part is None:
            part = await self._answer.read()
        while True:
            more = not self._answer.ended
            await send({"type": "http.response.body", "body": part, "more_body": more})
            if not more:
                return
            part = await self._answer.read()


def _number(value: bytes) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _full(limit: str) -> ApiError:
    return ApiError(
        ErrorCode.QUEUE_FULL, "Too many requests are waiting for a group. Retry later.", limit=limit
    )


def _deadline_passed() -> ApiError:
    return ApiError(
        ErrorCode.DEADLINE_PASSED, "The deadline passed before the answer began. Allow more time."
    )


def _group_failed(slot: Slot, cause: UpstreamError) -> ApiError:
    return ApiError(
        ErrorCode.GROUP_FAILED, f"The answer of the group {slot.group.id} cannot be passed on: {cause}."
    )
