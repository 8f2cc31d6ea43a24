"""A live session of the blocking client.

One thread, the *reader*, reads the stream all the time. If nothing read the stream, the server would wait. The reader
also connects again after a lost connection. Two locks protect the data that the reader shares with the threads of the
caller. ``_state`` is held only for a moment, ``_sending`` as long as frames are sent. On a new connection, the
client first sends the audio that the server still needs.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from daybreak.core import session_routes
from daybreak.core.retry import Retry
from daybreak.core.speech import FRAME_S, Pacer, Speech, is_temporary
from daybreak.errors import ApiError, DaybreakError, TransportError, UnreachableError
from daybreak.wire import Session, SessionEvent
from daybreak.ws import connection_options, require_websockets

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

_OPEN_S = 10.0


class LiveSession:
    """An open session. Send audio to it, and iterate over its events. Use it as a context manager.

    One thread may send while another iterates. If you leave the ``with`` block by an exception, the session ends;
    otherwise only its input ends. A lost connection is replaced: the new one continues where the lost one stopped, so
    neither audio nor events are lost. The client gives up after ``retry.stream_s`` seconds without a connection.

    :raises DaybreakError: if the server refuses the session, or cannot be reached for that time.
    """

    def __init__(
        self, session: Session, speech: Speech, *, server: str, headers: Mapping[str, str], retry: Retry
    ) -> None:
        require_websockets()
        self.session = session
        """The session as it was opened."""
        self._speech = speech
        self._pacer = Pacer()
        self._server = server
        self._headers = dict(headers)
        self._retry = retry
        self._state = threading.Condition()
        self._sending = threading.Lock()
        self._events: queue.SimpleQueue[SessionEvent | DaybreakError | None] = queue.SimpleQueue()
        self._error: DaybreakError | None = None
        self._closed = False
        self._scope = ExitStack()
        self._connection: ClientConnection | None = None
        try:
            self._connect()
        except DaybreakError as error:
            if not is_temporary(error):
                raise
            self._reconnect(error)
        self._reader = threading.Thread(target=self._read, name=f"session {session.id}", daemon=True)
        self._reader.start()

    @property
    def id(self) -> str:
        """The session's id."""
        return self.session.id

    @property
    def last_event(self) -> str | None:
        """The id of the newest event that has been received, even if you have not iterated over it yet.

        To continue in another process, pass the id of the last event that you processed to ``client.sessions.resume``.
        """
        return self._speech.last_event

    @property
    def position(self) -> int:
        """The position of the next sample to send. In a resumed session, send the audio from this position on."""
        return self._speech.position

    def send(self, audio: bytes, *, pace: bool = False) -> None:
        """Send samples; with ``pace``, as fast as they were spoken. Waits while 120 s of audio are unconfirmed.

        :raises ArgumentError: after ``end``.
        :raises DaybreakError: the error that has ended the session.
        """
        for frame in self._speech.frames(audio, paced=pace):
            if pace:
                time.sleep(self._pacer.delay(time.monotonic(), self._speech.seconds(frame)))
            self._send_frame(frame)

    def end(self) -> None:
        """End the input. The remaining events still arrive."""
        with self._sending:
            with self._state:
                if self._speech.input_ended:
                    return
                self._speech.input_ended = True
            self._send(json.dumps({"type": "end"}))

    def events(self) -> Iterator[SessionEvent]:
        """Iterate over the events as they arrive, up to the last one. If an error ends the stream, it is raised."""
        while (event := self._events.get()) is not None:
            if isinstance(event, DaybreakError):
                raise event
            yield event

    __iter__ = events

    def text(self) -> str:
        """End the input, wait until the session ends, and return the text of the remaining events."""
        self.end()
        return "".join(event.text for event in self.events() if event.type == "text")

    def close(self) -> None:
        """Close the connection.

        The session continues on the server until it finishes, is closed, is idle too long, or fails.
        """
        self._closed = True
        with suppress(Exception):
            self._scope.close()
        self._reader.join(_OPEN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._speech.ended and not self._closed:
            # Without "close", the server would keep the session open after an error of its client.
            failed = error or self._error
            with self._sending:
                self._send(json.dumps({"type": "close" if failed else "end"}))
        self.close()

    def _send_frame(self, frame: bytes) -> None:
        with self._state:
            while self._speech.full and self._error is None:
                self._state.wait(FRAME_S)
            if self._error is not None:
                raise self._error
        with self._sending:
            with self._state:
                self._speech.add(frame)
            self._send(frame)

    def _send(self, message: str | bytes) -> None:
        """Send a message. The caller holds ``_sending``.

        If the connection is lost, nothing is raised: :meth:`_connect` sends the audio and the end of the input again.
        """
        from websockets.exceptions import ConnectionClosed

        if self._connection is not None:
            with suppress(ConnectionClosed, OSError):
                self._connection.send(message)

    def _connect(self) -> None:
        """Connect, and send what the server needs. Raises ``TransportError`` or ``ApiError``."""
        from websockets.exceptions import ConnectionClosed, InvalidHandshake
        from websockets.sync.client import connect

        self._scope.close()
        url = session_routes.stream_url(self._server, self.session.id, **self._speech.query)
        try:
            connection = self._scope.enter_context(
                connect(url, additional_headers=self._headers, **connection_options(self._server))
            )
            ready = self._speech.parse(connection.recv(timeout=_OPEN_S))
            if ready.get("type") == "error":
                raise self._speech.error(ready)
            with self._sending:
                with self._state:
                    frames = self._speech.on_ready(ready)
                    ended = self._speech.input_ended
                for frame in frames:
                    connection.send(frame)
                if ended:
                    connection.send(json.dumps({"type": "end"}))
                self._connection = connection
        except (OSError, InvalidHandshake, TimeoutError) as exc:
            raise UnreachableError(f"cannot reach {self._server}: {exc}") from exc
        except ConnectionClosed as exc:
            raise lost(self._speech, self._server, exc) from exc

    def _read(self) -> None:
        """Read until the last event, an error, or :meth:`close`."""
        try:
            while not self._speech.ended and not self._closed:
                try:
                    self._receive()
                except DaybreakError as error:
                    if self._closed or not is_temporary(error):
                        raise
                    self._reconnect(error)
            self._finish(None)
        except DaybreakError as error:
            self._finish(None if self._closed else error)
        except Exception as error:  # a reader that ends silently would leave its caller waiting
            self._finish(TransportError(f"the stream failed: {error!r}"))

    def _receive(self) -> None:
        from websockets.exceptions import ConnectionClosed

        assert self._connection is not None
        try:
            text = self._connection.recv()
        except ConnectionClosed as exc:
            raise lost(self._speech, self._server, exc) from exc
        with self._state:
            event = self._speech.on_message(text if isinstance(text, str) else text.decode())
            self._state.notify_all()
        if event is not None:
            self._events.put(event)

    def _reconnect(self, error: DaybreakError) -> None:
        deadline, failures = time.monotonic() + self._retry.stream_s, 0
        while not self._closed:
            failures += 1
            if time.monotonic() > deadline:
                raise error
            time.sleep(self._retry.delay(failures, error))
            try:
                self._connect()
                return
            except (TransportError, ApiError) as again:
                if not is_temporary(again):
                    raise
                error = again

    def _finish(self, error: DaybreakError | None) -> None:
        with self._state:
            self._error = error
            self._state.notify_all()
        self._events.put(error)


def lost(speech: Speech, server: str, exc: Any) -> DaybreakError:
    """The error to raise for a connection that has ended."""
    code, reason = (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else (None, "")
    try:
        speech.on_closed(code, reason)
    except DaybreakError as error:
        return error
    return TransportError(f"the connection to {server} broke: {exc}")
