"""OpenAI's dialect for transcription sessions. The text of a session is divided into items. The client gets the text of
an item first in pieces (deltas), and then as a whole.

With ``turn_detection`` (the default), the model decides where a sentence ends, and each sentence is an item. If
``turn_detection`` is ``null``, the audio that the client appends between two commits is an item. The model must finish
such an item although no silence follows it, so each commit adds silence. Such an item is complete as soon as one of
three things happens:

* The model has processed enough of that silence, and all events up to that point have been sent.
* Text arrives that is based on later audio.
* The session ends, and the item has text.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from daybreak_server.api.errors import ApiError
from daybreak_server.api.sessions.realtime.connection import (
    Json,
    RealtimeConnection,
    RequestedSession,
    member,
    text_of,
)
from daybreak_server.api.sessions.realtime.openai_events import OpenAIDialect, rate_of
from daybreak_server.api.sessions.views import milliseconds
from daybreak_server.domain.ids import ulid
from daybreak_server.domain.sessions import SAMPLE_RATE, SessionEnd, SessionEvent, SessionEventType
from daybreak_server.ports.sessions import SessionWatch
from daybreak_server.ports.store_errors import StoreError

SILENCE_S = 2.5
"""How much silence a commit adds. A turn of the model lasts up to 2 s, and the model finishes its words
within half a second of silence."""
_LAST_AUDIO_S = 0.5
_TEXT = "conversation.item.input_audio_transcription"


@dataclass(slots=True)
class TranscriptItem:
    """A part of the audio and its text."""

    id: str = field(default_factory=lambda: f"item_{ulid()}")
    start: int = 0
    """``start`` and ``end`` are positions in the journal, in samples."""
    end: int | None = None
    text: str = ""
    announced: bool = False


class TranscriptionDialect(OpenAIDialect):
    """See the module."""

    kind = "transcription"
    events = "session.update, input_audio_buffer.append, input_audio_buffer.commit, input_audio_buffer.clear"

    def __init__(self, connection: RealtimeConnection) -> None:
        super().__init__(connection)
        self._by_commits = False
        self._items: deque[TranscriptItem] = deque([TranscriptItem()])
        """The items that are not complete; the last one is the one that the client appends to."""
        self._previous: str | None = None
        self._watching = False

    async def on_client(self, event: Json) -> None:
        """See the protocol."""
        match event["type"]:
            case "session.update" | "transcription_session.update":
                await self._update(event)
            case "input_audio_buffer.append":
                await self.connection.append(event)
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                await self.connection.send("input_audio_buffer.cleared")
            case _:
                await super().on_client(event)

    async def on_session(self, event: SessionEvent) -> None:
        """See the protocol."""
        match event.type:
            case SessionEventType.TEXT:
                await self._text(event)
            case SessionEventType.SEGMENT if not self._by_commits:
                self._items[0].end = int(event.data.get("end_ms", 0)) * SAMPLE_RATE // 1000
                await self._complete()
            case SessionEventType.DEGRADED:
                await self.connection.send_degraded(event)
            case SessionEventType.ENDED:
                if self._items[0].text:
                    await self._complete()
                if event.data.get("reason") != SessionEnd.FINISHED:
                    await self.send_failure(event)

    async def _update(self, event: Json) -> None:
        event = self.with_earlier(event)
        path = ("session", "audio", "input")
        source = text_of(event, *path, "transcription", "language")
        self.connection.configure(
            RequestedSession(
                model=text_of(event, *path, "transcription", "model") or self.connection.model,
                source=source,
                target=text_of(event, "session", "target_language") or source,
                rate=rate_of(event),
            )
        )
        given = member(event, *path) or {}
        self._by_commits = "turn_detection" in given and given["turn_detection"] is None
        await self.update(event)

    async def _commit(self) -> None:
        audio = await self.connection.begin()
        end = audio.record.received
        await audio.silence(SILENCE_S)
        if not self._by_commits:
            return
        item = self._items[-1]
        item.end = end
        self._items.append(TranscriptItem(start=audio.record.received))
        await self._announce(item)
        if not self._watching:
            self._watching = True
            self.connection.start(self._watch)

    async def _text(self, event: SessionEvent) -> None:
        rests_on = int(event.data.get("audio_ms", 0)) * SAMPLE_RATE // 1000
        while len(self._items) > 1 and rests_on > self._items[1].start:
            await self._complete()
        item = self._items[0]
        text = str(event.data["text"])
        # The first text of an item loses the space that separates it from the item before.
        delta = text if item.text else text.lstrip()
        if delta:
            item.text += delta
            await self.connection.send(f"{_TEXT}.delta", item_id=item.id, content_index=0, delta=delta)

    async def _watch(self) -> None:
        """Complete each committed item as soon as the model has processed it and enough silence after it."""
        audio = self.connection.audio
        if audio is not None:
            async with audio.watch() as watch:
                while len(self._items) > 1 and self.connection.audio is audio:
                    if not await self._complete_processed(watch):
                        await watch.progress()
        self._watching = False

    async def _complete_processed(self, watch: SessionWatch) -> bool:
        """Complete the oldest item if the model has processed it and enough silence after it. Return whether the
        model has processed that much."""
        item = self._items[0]
        try:
            record = await watch.read()
        except (StoreError, ApiError):
            return False
        if record.consumed < (item.end or 0) + _LAST_AUDIO_S * SAMPLE_RATE:
            return False
        await self.connection.has_seen(record.last_event)
        if self._items[0] is item and len(self._items) > 1:  # later text may have completed it
            await self._complete()
        return True

    async def _announce(self, item: TranscriptItem) -> None:
        item.announced = True
        await self.connection.send(
            "input_audio_buffer.committed", item_id=item.id, previous_item_id=self._previous
        )
        content = [{"type": "input_audio", "transcript": None}]
        shown: dict[str, Any] = {
            "id": item.id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": content,
        }
        await self.connection.send("conversation.item.added", previous_item_id=self._previous, item=shown)
        self._previous = item.id

    async def _complete(self) -> None:
        item = self._items.popleft()
        if not self._items:
            self._items.append(TranscriptItem(start=item.end or item.start))
        if not item.announced:
            await self._announce(item)
        seconds = milliseconds(max(0, (item.end or item.start) - item.start)) / 1000
        usage = {"type": "duration", "seconds": seconds}
        await self.connection.send(
            f"{_TEXT}.completed", item_id=item.id, content_index=0, transcript=item.text, usage=usage
        )
