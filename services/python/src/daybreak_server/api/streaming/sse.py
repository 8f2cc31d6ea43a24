"""Sends a subscription as server-sent events."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from contextlib import aclosing, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from daybreak_server.api import path_prefix
from daybreak_server.api.http.responses import until_disconnect
from daybreak_server.api.streaming.frames import Frame
from daybreak_server.api.streaming.stream_limits import StreamLimits
from daybreak_server.api.streaming.subscription import Subscription
from daybreak_server.ports.store_errors import StoreError

log = logging.getLogger("daybreak.api.streams")

_OPENING = b"retry: 1000\n\n"
_HEARTBEAT = b": heartbeat\n\n"
_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


def no_more_events() -> Response:
    """The response to a client that has seen the last event. After this response, a browser's
    ``EventSource`` does not reconnect.

    The response has a stream's content type, because earlier versions of Daybreak's client raise an error without it.
    """
    return Response(status_code=204, headers={"Content-Type": EventStream.media_type, **_HEADERS})


class EventStream(Response):
    """Sends frames until the task's last event, the server's shutdown, the client's disconnect, or a failure of the
    store while history is read."""

    media_type = "text/event-stream"

    def __init__(
        self,
        subscription: Subscription,
        stream_limits: StreamLimits,
        tenant: str,
        *,
        types: Collection[str] | None = None,
    ) -> None:
        """``types``: the types of events that are sent; ``None``: all."""
        self._subscription = subscription
        self._stream_limits = stream_limits
        self._tenant = tenant
        self._types = types
        self._sent_at = time.monotonic()
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream. :raises ApiError, StoreError: before anything is sent, so that the client gets an error."""
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b""})
            return
        with self._stream_limits.enter(self._tenant, "sse"):
            async with self._subscription:
                await until_disconnect(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": _OPENING, "more_body": True})
        prefix = path_prefix.current()
        with suppress(OSError):  # The client has disconnected.
            try:
                async with aclosing(self._subscription.batches()) as batches:
                    async for batch in batches:
                        wanted = self._wanted(batch)
                        if batch and not wanted and not self._is_quiet():
                            continue
                        body = b"".join(frame.with_prefix(prefix).sse for frame in wanted) or _HEARTBEAT
                        await send({"type": "http.response.body", "body": body, "more_body": True})
                        self._sent_at = time.monotonic()
            except StoreError as exc:
                log.info("a stream ended because its history cannot be read: %s", exc)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _wanted(self, batch: list[Frame]) -> list[Frame]:
        return batch if self._types is None else [frame for frame in batch if frame.type in self._types]

    def _is_quiet(self) -> bool:
        """Whether the client needs a heartbeat: nothing was sent for a while, because all events were unwanted."""
        return time.monotonic() - self._sent_at >= self._subscription.heartbeat_s
