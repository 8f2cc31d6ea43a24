"""OpenAI's dialect of translation sessions. Each piece of text is an event ``session.output_transcript.delta``."""

from __future__ import annotations

from daybreak_server.api.sessions.realtime.connection import Json, RequestedSession, text_of
from daybreak_server.api.sessions.realtime.openai_events import OpenAIDialect, rate_of
from daybreak_server.domain.sessions import SessionEnd, SessionEvent, SessionEventType


class TranslationDialect(OpenAIDialect):
    """OpenAI's dialect of translation sessions."""

    kind = "translation"
    events = "session.update, session.input_audio_buffer.append, session.close"

    async def on_client(self, event: Json) -> None:
        """See :meth:`.connection.Dialect.on_client`."""
        match event["type"]:
            case "session.update":
                event = self.with_earlier(event)
                self.connection.configure(
                    RequestedSession(
                        model=text_of(event, "session", "model") or self.connection.model,
                        source=text_of(event, "session", "audio", "input", "transcription", "language"),
                        target=text_of(event, "session", "audio", "output", "language"),
                        rate=rate_of(event),
                    )
                )
                await self.update(event)
            case "session.input_audio_buffer.append" | "input_audio_buffer.append":
                await self.connection.append(event)
            case "session.close":
                audio = await self.connection.begin()
                await audio.end()
            case _:
                await super().on_client(event)

    async def on_session(self, event: SessionEvent) -> None:
        """See :meth:`.connection.Dialect.on_session`."""
        if event.type is SessionEventType.TEXT:
            await self.connection.send(
                "session.output_transcript.delta",
                delta=event.data["text"],
                elapsed_ms=event.data.get("audio_ms"),
            )
        elif event.type is SessionEventType.DEGRADED:
            await self.connection.send_degraded(event)
        elif event.type is SessionEventType.ENDED:
            if event.data.get("reason") != SessionEnd.FINISHED:
                await self.send_failure(event)
            await self.connection.send("session.closed")
