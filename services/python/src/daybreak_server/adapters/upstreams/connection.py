"""One HTTP/1.1 connection to a group, over which one request after the other is sent.

Gateways use such connections for groups and workers; workers use them for their engines and for the gateway. The text
below says *group* for each of these peers.

Daybreak has its own client because it needs three facts that general clients hide: whether the connection was new,
whether a byte of an answer has arrived, and how much of an answer is in memory. This client also needs less time for a
request than a general client. ``httptools`` is the parser.

The life of an exchange: :meth:`HttpConnection.start` writes the request. The parser's callbacks fill the
:class:`HttpAnswer`: first the head, then parts of the body. While more than ``HIGH_WATER`` bytes of parts wait for the
caller, the connection does not read, and TCP's window stops the group. After the whole answer,
:meth:`HttpConnection.release` keeps the connection for the next request, or closes it if it cannot be used again. A
cancelled or broken exchange always closes the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import cast

import httptools

from daybreak_server.ports.upstreams import AnswerCutOffError, NoAnswerError, UpstreamRequest

CONTINUE_S = 1.0
"""How long to wait for permission to send a body that cannot be sent twice. After this time the body is sent anyway,
because a server need not give permission."""
HIGH_WATER = 64 * 1024
"""The connection stops reading when it has more than this many bytes of an answer in memory, and resumes below half of
that."""
MAX_HEAD_BYTES = 128 * 1024
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that concern one connection and are not passed on."""
_END_TO_END = frozenset({b"close", b"content-length", b"content-type"})
"""If the header ``Connection`` lists one of these names, the answer keeps the header of that name."""


class HttpAnswer:
    """What has arrived of one answer. Implements :class:`daybreak_server.ports.upstreams.UpstreamAnswer`."""

    def __init__(self, connection: HttpConnection, *, head_only: bool) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.begun = False
        """Whether the head has arrived."""
        self.permitted = False
        """Whether the group has asked for the body (100 Continue)."""
        self.sized = False
        """Whether the head says how long the body is."""
        self.usable = False
        """Whether the caller may have the answer. A stream is usable once its head has arrived. An answer of a known
        length is usable only once its body has begun, because a server may be killed between the head and the body."""
        self.complete = False
        self.error: AnswerCutOffError | NoAnswerError | None = None
        self.head_only = head_only
        self.ends_with_connection = True
        """Whether the end of the connection is the end of the body."""
        self._connection: HttpConnection | None = connection
        self._parts: deque[bytes] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        """See the port."""
        return self.complete and not self._parts

    @property
    def available(self) -> bool:
        """See the port."""
        return bool(self._parts) or self.complete

    async def read(self) -> bytes:
        """See the port."""
        while not self._parts:
            if self.error is not None:
                raise self.error
            if self.complete:
                self._let_go()
                return b""
            await self.wait()
        part = self._parts.popleft() if len(self._parts) == 1 else self._joined()
        self._bytes -= len(part)
        if self._bytes < HIGH_WATER // 2 and self._connection is not None:
            self._connection.resume_reading()
        return part

    def close(self) -> None:
        """See the port."""
        self._let_go()

    async def wait(self) -> None:
        """Wait until something new has arrived."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def notify(self) -> None:
        """Wake the caller that waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def add(self, part: bytes) -> bool:
        """Add a part of the body. Returns whether the connection must stop reading."""
        self._parts.append(part)
        self._bytes += len(part)
        return self._bytes > HIGH_WATER

    def _let_go(self) -> None:
        """Put the connection back for the next request, or close it if the answer is not complete."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            if self.complete:
                connection.release()
            else:
                connection.abort()

    def _joined(self) -> bytes:
        joined = b"".join(self._parts)
        self._parts.clear()
        return joined


class HttpConnection(asyncio.Protocol):
    """A connection. ``on_free`` gets it when it may be used again."""

    def __init__(self, *, host: bytes, on_free: Callable[[HttpConnection], None]) -> None:
        self.used = 0
        """How many requests were sent over it."""
        self.free_since = 0.0
        """When it was last put back, on the clock of the event loop."""
        self._host = host
        self._on_free = on_free
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: HttpAnswer | None = None
        self._head_bytes = 0
        self._reusable = False
        self._named: frozenset[bytes] = frozenset()
        """The headers listed in the answer's header ``Connection``. They concern one connection only."""
        self._surplus = False
        """Whether more than one answer has arrived for a request."""
        self._reading = True
        self._writable: asyncio.Future[None] | None = None

    # ── the caller's side ─────────────────────────────────────────────────────────────────────────────────

    @property
    def open(self) -> bool:
        """Whether requests can be sent over it."""
        return self._transport is not None and not self._transport.is_closing()

    def start(self, request: UpstreamRequest) -> HttpAnswer:
        """Write the head of the request, and also its body if the body can be sent again."""
        self._answer = answer = HttpAnswer(self, head_only=request.method == b"HEAD")
        self._reusable = False
        self._head_bytes = 0
        self._named = frozenset()
        self.used += 1
        head = _encode_head(request, self._host)
        self._write(head + request.body if request.rest is None else head)
        return answer

    async def finish(self, request: UpstreamRequest, answer: HttpAnswer) -> None:
        """Write the body if it can only be sent once, and wait until the answer is usable.

        :raises NoAnswerError: if the connection broke before the answer was usable
        :raises AnswerCutOffError: if the answer is not valid HTTP, or the answer's head is too large
        """
        if request.rest is not None:
            await self._send_body(request, request.rest, answer)
        while not answer.usable:
            if answer.error is not None:
                raise answer.error
            await answer.wait()

    def release(self) -> None:
        """Put the connection back after a complete answer, or close it if it cannot be used again."""
        if not self._reusable or self._surplus or not self.open:
            self.abort()
            return
        self._answer = None
        self._reusable = False
        self.resume_reading()
        self.free_since = asyncio.get_running_loop().time()
        self._on_free(self)

    def abort(self) -> None:
        """Close the connection at once."""
        self._answer = None
        self._reusable = False
        if self._transport is not None:
            self._transport.abort()

    def resume_reading(self) -> None:
        """Read from the network again."""
        if not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    async def _send_body(
        self, request: UpstreamRequest, rest: AsyncIterator[bytes], answer: HttpAnswer
    ) -> None:
        """Send the body as it arrives, once the group has asked for it or ``CONTINUE_S`` is over. Stop when the answer
        begins or the connection breaks."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CONTINUE_S):
                while not (answer.permitted or answer.begun or answer.error):
                    await answer.wait()
        part = request.body
        while not (answer.begun or answer.error):
            if part:
                self._write(_framed(request, part))
            if self._writable is not None:
                await self._writable
                if answer.begun or answer.error:
                    break
            try:
                part = await anext(rest)
            except StopAsyncIteration:
                if request.length is None:
                    self._write(b"0\r\n\r\n")
                return
        self._reusable = False

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    # ── the network's side ────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived."""
        answer = self._answer
        if answer is None or answer.complete:  # no request waits for an answer
            self.abort()
            return
        if not answer.begun:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if answer.complete:
                self._reusable = False
            else:
                self._fail(answer, AnswerCutOffError(f"the answer is not valid HTTP: {exc}"))
        else:
            if not answer.begun and self._head_bytes > MAX_HEAD_BYTES:
                self._fail(answer, AnswerCutOffError("the head of the answer is too large"))

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange."""
        answer, self._answer = self._answer, None
        self._reusable = False
        self.resume_writing()
        if answer is None or answer.complete:
            return
        reason = str(exc or "the group closed the connection")
        if not answer.usable:
            answer.error = NoAnswerError(reason, stale=self.used > 1 and not self._head_bytes)
        elif answer.ends_with_connection and exc is None:
            answer.complete = True
        else:
            answer.error = AnswerCutOffError(reason)
        answer.notify()

    def pause_writing(self) -> None:
        """Pause the body of the request."""
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Continue with the body of the request."""
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    def _fail(self, answer: HttpAnswer, error: AnswerCutOffError) -> None:
        answer.error = error
        self.abort()
        answer.notify()
        self.resume_writing()

    # ── the parser's callbacks ────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """The head of an answer begins. If no request waits for an answer, note that this one is surplus."""
        if self._answer is None or self._answer.complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        answer = self._answer
        if answer is None or answer.begun:  # a trailer
            return
        name = name.lower()
        if name == b"content-length" or (name == b"transfer-encoding" and value.lower() == b"chunked"):
            answer.ends_with_connection = False
            answer.sized = name == b"content-length"
        if name not in HOP_BY_HOP:
            answer.headers.append((name, value))
        elif name == b"connection":
            self._named |= {token.strip() for token in value.lower().split(b",")} - _END_TO_END

    def on_headers_complete(self) -> None:
        """The head is complete."""
        answer = self._answer
        if answer is None or answer.complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer
            answer.headers.clear()
            answer.ends_with_connection, answer.sized = True, False
            answer.permitted = status == 100
            answer.notify()
            return
        answer.status = status
        if self._named:
            answer.headers = [header for header in answer.headers if header[0] not in self._named]
        answer.begun, answer.usable = True, not answer.sized
        self._reusable = self._parser.should_keep_alive()
        if answer.head_only:  # the parser would wait for the body that the headers describe
            self._reusable = False
            answer.complete = answer.usable = True
        answer.notify()
        self.resume_writing()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        answer = self._answer
        if answer is None or answer.complete:
            return
        answer.usable = True
        if answer.add(body) and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()
        answer.notify()

    def on_message_complete(self) -> None:
        """The end of the answer, or of an interim answer."""
        answer = self._answer
        if answer is not None and answer.begun:
            answer.complete = answer.usable = True
            answer.notify()


def _encode_head(request: UpstreamRequest, host: bytes) -> bytes:
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (request.method, request.target, host)]
    lines += [b"%b: %b\r\n" % header for header in request.headers]
    if request.length is not None:
        if request.length or request.method not in (b"GET", b"HEAD"):
            lines.append(b"content-length: %d\r\n" % request.length)
    else:
        lines.append(b"transfer-encoding: chunked\r\n")
    if request.rest is not None:
        lines.append(b"expect: 100-continue\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def _framed(request: UpstreamRequest, part: bytes) -> bytes:
    if request.length is not None or not part:
        return part
    return b"%x\r\n%b\r\n" % (len(part), part)
