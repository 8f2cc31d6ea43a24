"""The stream of a session in Daybreak's own API, with audio in binary frames and events in text frames.

A gateway keeps no state between two connections. The client names the last event that it has seen, and the server
names the position from which it needs audio. The journal has the events and this position, so a client can
continue at any gateway.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

from pydantic_core import from_json
from starlette.websockets import WebSocket

from daybreak.wire import ErrorCode
from daybreak_server.api.auth.principal import Principal
from daybreak_server.api.errors import ApiError
from daybreak_server.api.sessions import views
from daybreak_server.api.sessions.audio.formats import AudioFormat
from daybreak_server.api.sessions.audio_input import AudioInput
from daybreak_server.api.sessions.service import SessionService
from daybreak_server.api.sessions.sockets import Sockets, receive
from daybreak_server.api.streaming.frames import parse_id
from daybreak_server.domain.sessions import SessionRecord, SessionState
from daybreak_server.ports.sessions import SessionEndedError

_ACK_S = 0.5


class SessionStream:
    """One connection to a session."""

    def __init__(self, service: SessionService, sockets: Sockets, socket: WebSocket, session: str) -> None:
        self._service = service
        self._sockets = sockets
        self._socket = socket
        self._session = session

    async def serve(self) -> None:
        """Serve the connection until the session or the connection ends."""
        await self._sockets.serve(self._socket, self._converse, send_error=self._send_error)

    async def _converse(self, caller: Principal) -> None:
        query = self._socket.query_params
        form = AudioFormat.parse(query.get("encoding"), query.get("sample_rate"))
        record = await self._service.get(self._session, caller)
        after = _resume_after(self._socket, record)
        audio = AudioInput(self._service, record, form)
        shown = views.session(record, trusted=caller.admin).to_json()
        await self._send({"type": "ready", "session": shown, "send_from": audio.send_from})
        if record.state is SessionState.ENDED and after == record.last_event:
            return
        await self._sockets.run_parts(self._read(audio), self._write(record, after), self._acknowledge(audio))

    async def _write(self, record: SessionRecord, after: str) -> None:
        session = record.session.id
        async with aclosing(self._service.follow(session, after=after)) as events:
            async for event in events:
                await self._send(views.event(session, event))

    async def _read(self, audio: AudioInput) -> None:
        while True:
            frame = await receive(self._socket)
            try:
                if isinstance(frame, bytes):
                    await audio.append(frame)
                else:
                    await self._control(audio, frame)
            except ApiError as exc:
                await self._send_error(exc, fatal=False)
            except SessionEndedError:
                continue  # `_write` still sends the event `ended`

    async def _control(self, audio: AudioInput, text: str) -> None:
        try:
            command = from_json(text, allow_inf_nan=False)
        except ValueError:
            command = None
        kind = command.get("type") if isinstance(command, dict) else None
        if kind == "end":
            await audio.end()
        elif kind == "close":
            await self._service.store.close_session(audio.record.session.id)
        else:
            raise ApiError(
                ErrorCode.INVALID_INPUT,
                'A text frame must be {"type": "end"} or {"type": "close"}. Send audio in binary frames.',
            )

    async def _acknowledge(self, audio: AudioInput) -> None:
        """Every half second, report which audio has arrived, unless none has arrived since the last report.

        The last frame gets a report too, because the client may wait for one.
        """
        acknowledged = audio.needed_from
        while True:
            await asyncio.sleep(_ACK_S)
            if audio.needed_from > acknowledged:
                acknowledged = audio.needed_from
                received_ms = views.milliseconds(audio.record.received)
                await self._send({"type": "received", "send_from": acknowledged, "received_ms": received_ms})

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send_text(json.dumps(message, ensure_ascii=False))

    async def _send_error(self, error: ApiError, *, fatal: bool = True) -> None:
        shown: dict[str, Any] = {
            "type": "error",
            "code": error.code.value,
            "message": error.detail,
            "fatal": fatal,
        }
        if error.retry_after_s is not None:
            shown["retry_after_s"] = error.retry_after_s
        await self._send(shown)


def _resume_after(socket: WebSocket, record: SessionRecord) -> str:
    """The id of the last event that the client has, from its parameter ``after``.

    If the client's id is later than the newest event of the session, the result is the id of the newest event, so that
    the client misses none of the next events.

    :raises ApiError: ``bad_event_id``
    """
    after = socket.query_params.get("after") or "0-0"
    return after if parse_id(after) < parse_id(record.last_event) else record.last_event
