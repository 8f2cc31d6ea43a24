"""Passes the answer of a group on to the client, part by part, and no faster than the client reads the parts."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from daybreak.wire import ErrorCode
from daybreak_server.api.routing.client_watch import ClientWatch
from daybreak_server.api.routing.forwarding import SET_BY_GATEWAY, Header
from daybreak_server.api.routing.pool_router import Slot
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.ports.upstreams import AnswerCutOffError, UpstreamAnswer

log = logging.getLogger("daybreak.api.routing")


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
        context: TraceContext | None = None,
        headers: tuple[Header, ...] = (),
    ) -> None:
        self.status_code = answer.status
        self.background = None
        self.body = b""
        self.raw_headers = [header for header in answer.headers if header[0] not in SET_BY_GATEWAY]
        self.raw_headers += headers
        if context is not None:
            self.raw_headers.append((b"traceparent", context.traceparent.encode()))
        self._answer = answer
        self._slot = slot
        self._watch = watch
        self._pool = pool
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer. If the group breaks off the answer, the message that ends the body is never sent. So the
        HTTP server closes the connection to the client."""
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
            self._watch.stop()
            self._answer.close()
            self._slot.release()
            self._ended(outcome)

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
