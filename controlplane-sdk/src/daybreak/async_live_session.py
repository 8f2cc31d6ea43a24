"""A live session of the asyncio client.

It works like :mod:`daybreak.live_session`, but an asyncio task takes the place of the thread that reads.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from daybreak.core import session_routes
from daybreak.core.retry import Retry
from daybreak.core.speech import Pacer, Speech, is_temporary
from daybreak.errors import ApiError, DaybreakError, TransportError, UnreachableError
from daybreak.live_session import lost
from daybreak.wire import Session, SessionEvent
from daybreak.ws import connection_options, require_websockets

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

_OPEN_S = 10.0


class AsyncLiveSession:
    """An open session. Send audio to it, and iterate over its events. Use it in ``async with``.

    One asyncio task may send while another iterates. If you leave the block by an exception, the session ends;
    otherwise only its input ends. A lost connection is replaced: the new one continues where the lost one stopped, so
    neither audio nor events are lost. The client gives up after ``retry.stream_s`` seconds without a connection.
    """

    def __init__(
        self, session: Session, speech: Speech, *, server: str, headers: Mapping[str, str], retry: Retry
    ) -> None:
        require_websockets()
        self.session = session
        """The session as it was opened."""
        self._speech = speech
        self._pacer = Pacer()
        self._progress = asyncio.Event()
        self._server = server
        self._headers = dict(headers)
        self._retry = retry
        self._sending = asyncio.Lock()
        self._events: asyncio.Queue[SessionEvent | DaybreakError | None] = asyncio.Queue()
        self._error: DaybreakError | None = None
        self._scope = AsyncExitStack()
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """The session's id."""
        return self.session.id

    @property
    def last_event(self) -> str | None:
        """The id of the newest event that has been received, even if you have not iterated over it yet.

        To continue in another process, give ``client.sessions.resume`` the id of the last event that you processed.
        """
        return self._speech.last_event

    @property
    def position(self) -> int:
        """The position of the next sample to send. In a resumed session, send the audio from this position on."""
        return self._speech.position

    async def start(self) -> Self:
        """Connect. ``client.sessions.open`` and ``resume`` call this.

        :raises DaybreakError: if the server refuses the session, or cannot be reached for ``retry.stream_s`` seconds.
        """
        try:
            await self._connect()
        except DaybreakError as error:
            if not is_temporary(error):
                raise
            await self._reconnect(error)
        self._reader = asyncio.create_task(self._read(), name=f"session {self.session.id}")
        return self

    async def send(self, audio: bytes, *, pace: bool = False) -> None:
        """Send samples; with ``pace``, as fast as they were spoken. Waits while 120 s of audio are not confirmed.

        :raises ArgumentError: after ``end``.
        :raises DaybreakError: the error that has ended the session.
        """
        clock = asyncio.get_running_loop().time
        for frame in self._speech.frames(audio, paced=pace):
            if pace:
                await asyncio.sleep(self._pacer.delay(clock(), self._speech.seconds(frame)))
            while self._speech.full and self._error is None:
                self._progress.clear()
                await self._progress.wait()
            if self._error is not None:
                raise self._error
            async with self._sending:
                self._speech.add(frame)
                await self._send(frame)

    async def end(self) -> None:
        """End the input. The remaining events still arrive."""
        async with self._sending:
            if not self._speech.input_ended:
                self._speech.input_ended = True
                await self._send(json.dumps({"type": "end"}))

    async def events(self) -> AsyncIterator[SessionEvent]:
        """Iterate over the events as they arrive, up to the last one. If an error ends the stream, it is raised."""
        while (event := await self._events.get()) is not None:
            if isinstance(event, DaybreakError):
                raise event
            yield event

    def __aiter__(self) -> AsyncIterator[SessionEvent]:
        return self.events()

    async def text(self) -> str:
        """End the input, wait until the session ends, and return the text of the remaining events."""
        await self.end()
        return "".join([event.text async for event in self.events() if event.type == "text"])

    async def close(self) -> None:
        """Close the connection.

        The session continues on the server until it finishes, is closed, is idle too long, or fails.
        """
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        await self._scope.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._speech.ended:
            # Without "close", the server would keep the session open after an error of its client.
            failed = error or self._error
            async with self._sending:
                await self._send(json.dumps({"type": "close" if failed else "end"}))
        await self.close()

    async def _send(self, message: str | bytes) -> None:
        """Send a message. The caller holds ``_sending``.

        If the connection is lost, nothing is raised: :meth:`_connect` sends the audio and the end of the input again.
        """
        from websockets.exceptions import ConnectionClosed

        if self._connection is not None:
            with suppress(ConnectionClosed, OSError):
                await self._connection.send(message)

    async def _connect(self) -> None:
        """Connect, and send what the server needs. Raises ``TransportError`` or ``ApiError``."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, InvalidHandshake

        await self._scope.aclose()
        url = session_routes.stream_url(self._server, self.session.id, **self._speech.query)
        try:
            connection = await self._scope.enter_async_context(
                connect(url, additional_headers=self._headers, **connection_options(self._server))
            )
            ready = self._speech.parse(await asyncio.wait_for(connection.recv(), _OPEN_S))
            if ready.get("type") == "error":
                raise self._speech.error(ready)
            async with self._sending:
                for frame in self._speech.on_ready(ready):
                    await connection.send(frame)
                if self._speech.input_ended:
                    await connection.send(json.dumps({"type": "end"}))
                self._connection = connection
        except (OSError, InvalidHandshake, TimeoutError) as exc:
            raise UnreachableError(f"cannot reach {self._server}: {exc}") from exc
        except ConnectionClosed as exc:
            raise lost(self._speech, self._server, exc) from exc

    async def _read(self) -> None:
        """Read until the last event or an error."""
        try:
            while not self._speech.ended:
                try:
                    await self._receive()
                except DaybreakError as error:
                    if not is_temporary(error):
                        raise
                    await self._reconnect(error)
        except DaybreakError as error:
            self._error = error
        except Exception as error:  # a reader that ends silently would leave its caller waiting
            self._error = TransportError(f"the stream failed: {error!r}")
        self._progress.set()
        self._events.put_nowait(self._error)

    async def _receive(self) -> None:
        from websockets.exceptions import ConnectionClosed

        assert self._connection is not None
        try:
            text = await self._connection.recv()
        except ConnectionClosed as exc:
            raise lost(self._speech, self._server, exc) from exc
        event = self._speech.on_message(text if isinstance(text, str) else text.decode())
        self._progress.set()
        if event is not None:
            self._events.put_nowait(event)

    async def _reconnect(self, error: DaybreakError) -> None:
        clock = asyncio.get_running_loop().time
        deadline, failures = clock() + self._retry.stream_s, 0
        while True:
            failures += 1
            if clock() > deadline:
                raise error
            await asyncio.sleep(self._retry.delay(failures, error))
            try:
                await self._connect()
                return
            except (TransportError, ApiError) as again:
                if not is_temporary(again):
                    raise
                error = again
