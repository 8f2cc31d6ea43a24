"""vLLM's dialect: ``transcription.delta`` for each piece of text, and ``transcription.done`` at a session's end."""

from __future__ import annotations

from typing import Any

from daybreak_server.api.errors import ApiError
from daybreak_server.api.sessions.realtime.connection import (
    Json,
    RealtimeConnection,
    RequestedSession,
    text_of,
    unknown_event,
)
from daybreak_server.api.sessions.realtime.whisper_live_full import wait_fields
from daybreak_server.api.sessions.views import milliseconds
from daybreak_server.domain.sessions import SAMPLE_RATE, SessionEnd, SessionEvent, SessionEventType

_EVENTS = "session.update, input_audio_buffer.append, input_audio_buffer.commit"


class VllmDialect:
    """vLLM's dialect. After ``transcription.done``, more audio begins another session."""

    ends_connection = False

    def __init__(self, connection: RealtimeConnection) -> None:
        self._connection = connection
        self._received = 0

    async def on_client(self, event: Json) -> None:
        """See :meth:`.connection.Dialect.on_client`."""
        match event["type"]:
            case "session.update":
                source = text_of(event, "language")
                self._connection.configure(
                    RequestedSession(
                        model=text_of(event, "model") or self._connection.model,
                        source=source,
                        target=text_of(event, "target_language") or source,
                        rate=SAMPLE_RATE,
                    )
                )
            case "input_audio_buffer.append":
                await self._connection.append(event)
            case "input_audio_buffer.commit":
                audio = await self._connection.begin()
                if event.get("final") is True:
                    await audio.end()
                    self._received = audio.record.received
            case kind:
                raise unknown_event(kind, _EVENTS)

    async def on_session(self, event: SessionEvent) -> None:
        """See :meth:`.connection.Dialect.on_session`."""
        if event.type is SessionEventType.TEXT:
            await self._connection.send("transcription.delta", delta=event.data["text"])
        elif event.type is SessionEventType.DEGRADED:
            await self._connection.send_degraded(event)
        elif event.type is SessionEventType.ENDED:
            if event.data.get("reason") != SessionEnd.FINISHED:
                await self._send(f"The session has ended: {event.data.get('reason')}.", "session_ended")
            usage = {"type": "duration", "seconds": milliseconds(self._received) / 1000}
            await self._connection.send("transcription.done", text=event.data.get("text", ""), usage=usage)

    async def send_error(self, error: ApiError, event: Json | None = None) -> None:
        """See :meth:`.connection.Dialect.send_error`."""
        await self._send(error.detail, error.code.value, **wait_fields(error, self._connection.uid))

    async def _send(self, error: str, code: str, **more: Any) -> None:
        await self._connection.send("error", error=error, code=code, **more)
