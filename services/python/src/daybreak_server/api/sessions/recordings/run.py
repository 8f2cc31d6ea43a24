"""Sends a recording through a session, as fast as the model can process the audio, and yields the session's events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from daybreak.wire import ErrorCode
from daybreak_server.api.asyncio_tasks import cancel_and_wait
from daybreak_server.api.errors import ApiError, to_api_error
from daybreak_server.api.http.responses import until_disconnect
from daybreak_server.api.openai.errors import openai_response
from daybreak_server.api.sessions.audio_input import AudioInput
from daybreak_server.api.sessions.recordings.form import RecordingRequest
from daybreak_server.api.sessions.recordings.text import RecordingSegment, RecordingText
from daybreak_server.api.sessions.service import SessionService
from daybreak_server.domain.sessions import SessionEnd, SessionEvent, SessionEventType, SessionRecord
from daybreak_server.ports.store_errors import StoreError


class RecordingRun:
    """A recording, and the session that processes it."""

    def __init__(self, service: SessionService, record: SessionRecord, wanted: RecordingRequest) -> None:
        self.wanted = wanted
        self._service = service
        self._record = record
        self._error: Exception | None = None
        self._segments: list[RecordingSegment] = []
        self._text = ""

    async def events(self) -> AsyncGenerator[SessionEvent, None]:
        """The events of the session. :raises ApiError, StoreError: if the session cannot finish."""
        session = self._record.session.id
        feeding = asyncio.create_task(self._feed())
        ended = False
        try:
            async with aclosing(self._service.follow(session)) as events:
                async for event in events:
                    self._take(event)
                    yield event
            ended = True
        finally:
            await cancel_and_wait(feeding)
            if not ended:
                with suppress(StoreError):
                    await self._service.store.close_session(session)

    async def finish(self) -> RecordingText:
        """The whole text. :raises ApiError, StoreError: as :meth:`events` does."""
        async with aclosing(self.events()) as events:
            async for _ in events:
                pass
        return self.result()

    def result(self) -> RecordingText:
        """The text. Call this after the last event."""
        new = self._record.session
        return RecordingText(
            text=self._text.strip(),
            segments=self._segments,
            language=new.target,
            duration_s=self.wanted.recording.duration_s,
            translated=new.source != new.target,
        )

    def _take(self, event: SessionEvent) -> None:
        data = event.data
        if event.type is SessionEventType.TEXT:
            self._text += str(data["text"])
        elif event.type is SessionEventType.SEGMENT:
            span = int(data.get("start_ms", 0)), int(data.get("end_ms", 0))
            self._segments.append(RecordingSegment(*span, str(data["text"])))
        elif event.type is SessionEventType.ENDED and data.get("reason") != SessionEnd.FINISHED:
            # After a session has failed, the store refuses its audio. That refusal is not the cause of the failure.
            raise _failure(data) if data.get("error") or self._error is None else self._error

    async def _feed(self) -> None:
        """Send the recording to the session. If that fails, end the session, so that the session's last event also
        ends :meth:`events`."""
        audio = AudioInput(self._service, self._record, self.wanted.recording.format)
        try:
            for piece in self.wanted.recording.pieces():
                await audio.append(piece)
            await audio.end()
        except (ApiError, StoreError) as exc:
            self._error = exc
            with suppress(StoreError):
                await self._service.store.close_session(self._record.session.id)


def _failure(data: Mapping[str, Any]) -> ApiError:
    error = data.get("error") or {}
    message = error.get("message") or f"The session has ended: {data.get('reason')}."
    return ApiError(ErrorCode.GROUP_FAILED, str(message))


class StreamedText(Response):
    """A response that sends the growing text as server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, run: RecordingRun) -> None:
        super().__init__(headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, and end the session if the client disconnects."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await until_disconnect(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        async def emit(body: dict[str, Any]) -> None:
            line = f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
            await send({"type": "http.response.body", "body": line.encode(), "more_body": True})

        try:
            async with aclosing(self._run.events()) as events:
                async for event in events:
                    if event.type is SessionEventType.TEXT:
                        await emit({"type": "transcript.text.delta", "delta": event.data["text"]})
            result = self._run.result()
            await emit({"type": "transcript.text.done", "text": result.text})
        except (ApiError, StoreError) as exc:
            error = to_api_error(exc, "")
            assert error is not None
            await emit(json.loads(bytes(openai_response(error, None).body)))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
