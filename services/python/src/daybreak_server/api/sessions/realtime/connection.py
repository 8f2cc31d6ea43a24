"""Serves a connection to ``/v1/realtime`` or ``/v1/realtime/translations``: opens its sessions, one after the other,
appends the client's audio to them, and sends events.

The client's first ``session.update`` chooses the dialect. From then on, this :class:`Dialect` interprets the client's
events and writes the server's events. The connection has the operations that all dialects share.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic_core import from_json
from starlette.websockets import WebSocket

from daybreak.wire import ErrorCode
from daybreak_server.api.auth.principal import Principal
from daybreak_server.api.errors import ApiError, invalid_field
from daybreak_server.api.sessions import opening
from daybreak_server.api.sessions.audio.formats import AudioFormat, Encoding, invalid_audio
from daybreak_server.api.sessions.audio_input import AudioInput
from daybreak_server.api.sessions.service import SessionService
from daybreak_server.api.sessions.sockets import Sockets, receive
from daybreak_server.api.streaming.frames import parse_id
from daybreak_server.domain.ids import ulid
from daybreak_server.domain.sessions import SessionEvent, SessionEventType
from daybreak_server.ports.sessions import SessionEndedError
from daybreak_server.ports.store_errors import StoreError

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedSession:
    """The session that a client requests."""

    model: str | None
    source: str | None
    target: str | None
    rate: int


class Dialect(Protocol):
    """The protocol that a client and the server use."""

    ends_connection: bool
    """Whether the connection ends with its session; otherwise the client may begin another session on it."""

    async def on_client(self, event: Json) -> None:
        """Handle an event of the client.

        :raises ApiError: the client gets the error. The connection continues if the status of the error is below 429.
        """

    async def on_session(self, event: SessionEvent) -> None:
        """Handle an event of the session."""

    async def send_error(self, error: ApiError, event: Json | None = None) -> None:
        """Send an error. ``event``: the client's event that caused it."""


class RealtimeConnection:
    """One WebSocket."""

    def __init__(
        self,
        service: SessionService,
        sockets: Sockets,
        socket: WebSocket,
        choose: Callable[[RealtimeConnection, Json | None], Dialect],
    ) -> None:
        self.audio: AudioInput | None = None
        self.wanted: RequestedSession | None = None
        self.seen = "0-0"
        """The id of the last event that has been handled."""
        self.model = socket.query_params.get("model")
        self.id = f"sess_{ulid()}"
        self.uid = socket.query_params.get("uid") or self.id
        """The name that a client of WhisperLive gives itself; the same as :attr:`id` if the client gives none."""
        self._service = service
        self._sockets = sockets
        self._socket = socket
        self._choose = choose
        self._trace = opening.begin(service.ctx, socket)
        self._chosen: Dialect | None = None
        self._caller = Principal()
        self._opened = asyncio.Event()
        self._closed = asyncio.Event()
        self._handled = asyncio.Event()
        self._count = 0
        self._started: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()

    async def serve(self) -> None:
        """Serve the connection until it ends, or until its session ends if the dialect has ``ends_connection``."""

        async def send_error(error: ApiError) -> None:
            await self._dialect().send_error(error)

        await self._sockets.serve(self._socket, self._converse, send_error=send_error, trace=self._trace)

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` beside the conversation, after earlier ``work`` has ended. If it fails, the connection ends."""
        self._started.put_nowait(work)

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        self._count += 1
        event = {"type": kind, "event_id": f"event_{self.id[5:]}_{self._count}", **fields}
        await self._socket.send_text(json.dumps(event, ensure_ascii=False))

    async def has_seen(self, event_id: str) -> None:
        """Wait until this event of the session, and all before it, have been handled."""
        while parse_id(self.seen) < parse_id(event_id):
            self._handled.clear()
            await self._handled.wait()

    async def send_degraded(self, event: SessionEvent) -> None:
        """Tell the client that the length of the model's turns has changed. The protocols of the dialects have no
        event for this, so all dialects add the same event."""
        await self.send("session.degraded", **event.data)

    def configure(self, wanted: RequestedSession) -> None:
        """Set the fields of the session.

        :raises ApiError: if there is no such pool, language pair or rate, or the session has begun with other fields.
        """
        AudioFormat.parse(Encoding.PCM16, wanted.rate)
        self._service.pools.choose(
            wanted.model, lambda languages: languages.find(wanted.source, wanted.target)
        )
        if self.audio is not None and wanted != self.wanted:
            raise ApiError(
                ErrorCode.CONFLICT,
                "The session has begun, so its model, languages and rate cannot change. Connect again.",
            )
        self.wanted = wanted

    async def append(self, event: Json) -> None:
        """Append the audio of an event to the session. Open a session if none is open. :raises ApiError:"""
        text = event.get("audio")
        if not isinstance(text, str):
            raise invalid_field("audio", "The field audio must be a text with base64.")
        try:
            samples = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise invalid_audio("The field audio is not valid base64.") from None
        if self.audio is not None and self.audio.ended and not self._dialect().ends_connection:
            await self._closed.wait()  # the next session begins when the text of this one is complete
        audio = await self.begin()
        await audio.append(samples)

    async def begin(self) -> AudioInput:
        """Open the session if it is not open yet. :returns: its audio input. :raises ApiError:"""
        if self.audio is None:
            wanted = self.wanted
            if wanted is None:
                raise ApiError(ErrorCode.INVALID_INPUT, "Send session.update first: it names the model.")
            record = await self._service.open(
                self._caller,
                trace=self._trace,
                pool=wanted.model,
                source=wanted.source,
                target=wanted.target,
                client="realtime",
            )
            form = AudioFormat(Encoding.PCM16, wanted.rate)
            self.audio = AudioInput(self._service, record, form)
            self._closed.clear()
            self._opened.set()
        return self.audio

    async def _converse(self, caller: Principal) -> None:
        self._caller = caller
        await self._dialect().on_client({"type": "connect"})
        try:
            await self._sockets.run_parts(self._read(), self._write(), self._run_started())
        finally:
            if self.audio is not None:
                # No client can continue a session of this interface. Left open, the session would keep its place
                # until its idle timeout.
                with suppress(StoreError):
                    await self._service.store.close_session(self.audio.record.session.id)

    async def _run_started(self) -> None:
        while True:
            work = await self._started.get()
            await work()

    async def _read(self) -> None:
        while True:
            frame = await receive(self._socket)
            event: Json | None = None
            try:
                event = _parse(frame)
                if self._chosen is None and event["type"] == "session.update":
                    self._chosen = self._choose(self, event)
                await self._dialect().on_client(event)
            except ApiError as exc:
                if exc.status >= 429:
                    raise
                await self._dialect().send_error(exc, event)
            except SessionEndedError:
                continue  # the event that ends the session follows

    async def _write(self) -> None:
        while True:
            await self._opened.wait()
            assert self.audio is not None
            self.seen = "0-0"
            session = self.audio.record.session.id
            async with aclosing(self._service.follow(session)) as events:
                async for event in events:
                    if event.type is SessionEventType.ENDED:
                        self.audio = None
                        self._opened.clear()
                    await self._dialect().on_session(event)
                    self.seen = event.id
                    self._handled.set()
            self._closed.set()
            if self._dialect().ends_connection:
                return

    def _dialect(self) -> Dialect:
        return self._chosen or self._choose(self, None)


def _parse(frame: bytes | str) -> Json:
    if isinstance(frame, bytes):
        raise ApiError(
            ErrorCode.INVALID_INPUT, "Send events as text frames with JSON. Audio is base64 in them."
        )
    try:
        event = from_json(frame, allow_inf_nan=False)
    except ValueError:
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise ApiError(ErrorCode.INVALID_INPUT, "The event is not a JSON object with a type.")
    return event


def member(event: Json, *path: str) -> Any:
    """A field in nested objects; ``None`` if one of them is missing. :raises ApiError: if one of them is not
    an object."""
    found: Any = event
    for index, name in enumerate(path):
        if found is None:
            return None
        if not isinstance(found, Mapping):
            raise invalid_field(".".join(path[:index]), f"{'.'.join(path[:index])} must be an object.")
        found = found.get(name)
    return found


def text_of(event: Json, *path: str) -> str | None:
    """A field that is a text or absent. :raises ApiError: if it has another type."""
    found = member(event, *path)
    if found is not None and not isinstance(found, str):
        raise invalid_field(".".join(path), f"{'.'.join(path)} must be a text.")
    return found


def unknown_event(kind: str, known: str) -> ApiError:
    """The error for an event that the dialect does not have."""
    return ApiError(ErrorCode.INVALID_INPUT, f"There is no event {kind[:60]!r}. The events are: {known}.")
