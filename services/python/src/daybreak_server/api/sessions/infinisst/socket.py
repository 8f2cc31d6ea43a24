"""Serves ``WS /wss/{session_id}``. The client sends samples and then ``EOF``; the server sends text and then
``PROCESSING_COMPLETE``."""

from __future__ import annotations

from contextlib import aclosing

from starlette.websockets import WebSocket

from daybreak.wire import ErrorCode
from daybreak_server.api.auth.principal import Principal
from daybreak_server.api.errors import ApiError
from daybreak_server.api.sessions.audio.formats import AudioFormat, Encoding
from daybreak_server.api.sessions.audio_input import AudioInput
from daybreak_server.api.sessions.service import SessionService
from daybreak_server.api.sessions.sockets import Sockets, receive
from daybreak_server.domain.sessions import SessionEnd, SessionEventType, SessionRecord
from daybreak_server.ports.sessions import SessionEndedError

READY = "READY"
COMPLETE = "PROCESSING_COMPLETE"


class InfiniSSTSocket:
    """One connection."""

    def __init__(self, service: SessionService, sockets: Sockets, socket: WebSocket, session: str) -> None:
        self._service = service
        self._sockets = sockets
        self._socket = socket
        self._session = session

    async def serve(self) -> None:
        """Serve the connection until it or its session ends."""
        await self._sockets.serve(self._socket, self._converse, send_error=self._send_error)

    async def _converse(self, caller: Principal) -> None:
        query = self._socket.query_params
        form = AudioFormat.parse(query.get("encoding") or Encoding.FLOAT32, query.get("sample_rate"))
        record = await self._service.get(self._session, caller)
        audio = AudioInput(self._service, record, form)
        await self._socket.send_text(READY)
        await self._sockets.run_parts(self._read(audio), self._write(record))

    async def _read(self, audio: AudioInput) -> None:
        while True:
            frame = await receive(self._socket)
            try:
                if isinstance(frame, bytes):
                    await audio.append(frame)
                else:
                    await self._control(audio, frame.strip())
            except ApiError as exc:
                await self._send_error(exc)
            except SessionEndedError:
                continue  # `_write` still sends the last text of the session

    async def _control(self, audio: AudioInput, command: str) -> None:
        if command == "EOF":
            await audio.end()
        elif command == "PING":
            await self._socket.send_text("PONG")
        else:
            raise ApiError(
                ErrorCode.INVALID_INPUT,
                f"There is no command {command[:40]!r}. Send EOF, PING, or samples in binary frames.",
            )

    async def _write(self, record: SessionRecord) -> None:
        async with aclosing(self._service.follow(record.session.id)) as events:
            async for event in events:
                if event.type is SessionEventType.TEXT:
                    await self._socket.send_text(str(event.data["text"]))
                elif event.type is SessionEventType.ENDED:
                    error = event.data.get("error") or {}
                    await self._socket.send_text(_last(event.data.get("reason"), error.get("message")))

    async def _send_error(self, error: ApiError) -> None:
        await self._socket.send_text(f"ERROR: {error.code.value}: {error.detail}")


def _last(reason: str | None, message: str | None) -> str:
    """The last text frame of a session."""
    if reason == SessionEnd.FINISHED:
        return COMPLETE
    return f"ERROR: session_{reason}: {message or f'The session has ended: {reason}.'}"
