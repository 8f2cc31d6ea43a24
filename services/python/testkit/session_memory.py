"""A store of sessions in memory, for tests of the API alone. Its simulated group writes a word for each block of audio.

The text depends on the audio, so a lost, doubled or changed sample changes the text. The store can fail on demand.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.sessions import (
    SAMPLE_BYTES,
    SAMPLE_RATE,
    GroupSessions,
    NewSession,
    SessionEnd,
    SessionEvent,
    SessionEventType,
    SessionId,
    SessionRecord,
    SessionsMeasured,
    SessionsOverview,
    SessionState,
    SessionsThroughput,
)
from daybreak_server.ports.sessions import (
    TENANT_LIMIT,
    AudioGapError,
    SessionEndedError,
    SessionsFullError,
    SessionUnknownError,
    SessionWatch,
)
from daybreak_server.ports.store_errors import StoreUnavailableError

BLOCK = SAMPLE_RATE * 48 // 100
"""The number of samples in a block. The group writes one word for each block."""
WORDS_A_SEGMENT = 4


def words(audio: bytes) -> list[str]:
    """What the group writes for this audio."""
    size = BLOCK * SAMPLE_BYTES
    blocks = [audio[first : first + size] for first in range(0, len(audio), size)]
    return [hashlib.sha256(block).hexdigest()[:6] + " " for block in blocks]


def spoken(audio: bytes) -> str:
    """The whole text of this audio."""
    return "".join(words(audio))


@dataclass
class _Session:
    record: SessionRecord
    audio: bytearray = field(default_factory=bytearray)
    events: list[SessionEvent] = field(default_factory=list)
    waiters: list[asyncio.Event] = field(default_factory=list)
    words: int = 0


class _Watch:
    """Implements :class:`daybreak_server.ports.sessions.SessionWatch`."""

    def __init__(self, store: MemorySessions, session: _Session, tenant: str) -> None:
        self._store, self._session, self._tenant = store, session, tenant
        self._woken = asyncio.Event()

    async def read(self) -> SessionRecord:
        """See the port."""
        self._woken = asyncio.Event()
        self._session.waiters.append(self._woken)
        return await self._store.session(self._session.record.session.id, tenant=self._tenant)

    async def progress(self, *, within_s: float = math.inf) -> None:
        """See the port."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if within_s == math.inf else within_s):
                await self._woken.wait()


class MemorySessions:
    """Implements ``SessionStore`` and ``SessionEvents`` of :mod:`daybreak_server.ports.sessions`.

    ``group``: whether a group exists; ``down``: whether the store fails; ``broken``: why the group fails all sessions.
    """

    def __init__(self, *, room: int = 1000, per_tenant: int = 1000) -> None:
        self.room = room
        self.per_tenant = per_tenant
        self.group = True
        self.down = False
        self.broken: Cause | None = None
        self._sessions: dict[SessionId, _Session] = {}
        self._ids = 0

    async def open_session(self, new: NewSession) -> SessionRecord:
        """See the port."""
        self._check_up()
        found = self._sessions.get(new.id)
        if found is None:
            if sum(s.record.state is not SessionState.ENDED for s in self._sessions.values()) >= self.room:
                raise SessionsFullError("full", reason="limit", retry_after_s=7.0)
            if len(await self.sessions(new.pool, tenant=new.tenant)) >= self.per_tenant:
                raise SessionsFullError("full", reason=TENANT_LIMIT, retry_after_s=7.0)
            now = _now_ms()
            record = SessionRecord(
                session=new,
                state=SessionState.WAITING,
                opened_ms=now,
                touched_ms=now,
                latency_multiplier=new.latency_multiplier,
            )
            found = self._sessions[new.id] = _Session(record)
            self._work(found)
        return found.record

    async def session(self, session: SessionId, *, tenant: str) -> SessionRecord:
        """See the port."""
        self._check_up()
        found = self._sessions.get(session)
        if found is None or found.record.session.tenant != tenant:
            raise SessionUnknownError(session)
        self._work(found)
        return found.record

    async def sessions(self, pool: str, *, tenant: str | None = None) -> Sequence[SessionRecord]:
        """See the port."""
        self._check_up()
        return [
            s.record
            for s in self._sessions.values()
            if s.record.session.pool == pool
            and s.record.state is not SessionState.ENDED
            and tenant in {None, s.record.session.tenant}
        ]

    async def append_audio(
        self, session: SessionId, samples: bytes, *, at: int, end: bool = False
    ) -> SessionRecord:
        """See the port."""
        self._check_up()
        found = self._sessions[session]
        if found.record.state is SessionState.ENDED:
            raise SessionEndedError(session)
        if at > found.record.received:
            raise AudioGapError(session, received=found.record.received)
        found.audio += samples[(found.record.received - at) * SAMPLE_BYTES :]
        received = len(found.audio) // SAMPLE_BYTES
        ended = end or found.record.input_ended
        found.record = replace(found.record, received=received, input_ended=ended, touched_ms=_now_ms())
        self._work(found)
        return found.record

    async def close_session(
        self, session: SessionId, *, reason: SessionEnd = SessionEnd.CLOSED
    ) -> SessionRecord:
        """See the port."""
        self._check_up()
        found = self._sessions[session]
        self._end(found, reason)
        return found.record

    async def session_events(
        self, session: SessionId, *, after: str = "0-0", limit: int = 1000
    ) -> Sequence[SessionEvent]:
        """See the port."""
        self._check_up()
        return [e for e in self._sessions[session].events if _key(e.id) > _key(after)][:limit]

    async def sessions_overview(self, pool: str) -> SessionsOverview:
        """See the port."""
        found = await self.sessions(pool)
        waiting = sum(record.state is SessionState.WAITING for record in found)
        measured = SessionsMeasured(
            lag_ms=12.0,
            room=self.room - len(found),
            prefill=2,
            decode=3,
            throughput=SessionsThroughput(audio_s=1.5),
        )
        group = GroupSessions(group=GroupId("g-1"), sessions=len(found) - waiting, measured=measured)
        return SessionsOverview(open=len(found), waiting=waiting, groups=(group,))

    async def follow_session(self, session: SessionId, *, after: str = "0-0") -> AsyncIterator[SessionEvent]:
        """See the port."""
        found = self._sessions[session]
        while True:
            # Registered before the read, so an event that arrives while the caller handles earlier ones ends the wait.
            changed = asyncio.Event()
            found.waiters.append(changed)
            for event in await self.session_events(session, after=after):
                yield event
                after = event.id
                if event.type is SessionEventType.ENDED:
                    return
            await changed.wait()

    async def announce_progress(self, session: SessionId, *, tenant: str) -> SessionRecord:
        """See the port. Here, each event wakes the watches."""
        return await self.session(session, tenant=tenant)

    @asynccontextmanager
    async def watch_session(self, session: SessionId, *, tenant: str) -> AsyncIterator[SessionWatch]:
        """See the port."""
        yield _Watch(self, self._sessions[session], tenant)

    def all(self) -> list[SessionRecord]:
        """All sessions, oldest first."""
        return [found.record for found in self._sessions.values()]

    def audio(self, session: str) -> bytes:
        """All audio that has arrived."""
        return bytes(self._sessions[SessionId(session)].audio)

    def _check_up(self) -> None:
        if self.down:
            raise StoreUnavailableError("the store is down")

    def _work(self, found: _Session) -> None:
        """Do at once what a group would do with the audio so far."""
        record = found.record
        if not self.group or record.state is SessionState.ENDED:
            return
        if self.broken is not None:
            self._end(found, SessionEnd.FAILED, self.broken)
            return
        if record.state is SessionState.WAITING:
            found.record = record = replace(
                record, state=SessionState.ACTIVE, group=GroupId("g-1"), attempt=record.attempt + 1
            )
            self._add(found, SessionEventType.STARTED, attempt=record.attempt)
        while found.record.received - found.record.consumed >= BLOCK or (
            record.input_ended and found.record.consumed < found.record.received
        ):
            self._word(found)
        if found.record.input_ended:
            self._segment(found)
            self._end(found, SessionEnd.FINISHED)

    def _word(self, found: _Session) -> None:
        first = found.record.consumed
        last = min(first + BLOCK, found.record.received)
        (text,) = words(bytes(found.audio[first * SAMPLE_BYTES : last * SAMPLE_BYTES]))
        found.record = replace(found.record, consumed=last)
        segment = found.words // WORDS_A_SEGMENT
        self._add(found, SessionEventType.TEXT, text=text, segment=segment, audio_ms=_ms(last))
        found.words += 1
        if found.words % WORDS_A_SEGMENT == 0:
            self._segment(found, segment)

    def _segment(self, found: _Session, segment: int | None = None) -> None:
        number = found.words // WORDS_A_SEGMENT if segment is None else segment
        texts = [e.data["text"] for e in found.events if e.data.get("segment") == number and e.type == "text"]
        if texts:
            span = {"start_ms": number * WORDS_A_SEGMENT * 480, "end_ms": _ms(found.record.consumed)}
            self._add(found, SessionEventType.SEGMENT, segment=number, text="".join(texts), **span)

    def _end(self, found: _Session, reason: SessionEnd, cause: Cause | None = None) -> None:
        if found.record.state is SessionState.ENDED:
            return
        found.record = replace(found.record, state=SessionState.ENDED, end=reason, error=cause)
        text = "".join(str(e.data["text"]) for e in found.events if e.type is SessionEventType.TEXT)
        error = {"error": {"code": cause.reason, "message": cause.message}} if cause else {}
        self._add(found, SessionEventType.ENDED, reason=reason.value, text=text, **error)

    def _add(self, found: _Session, kind: SessionEventType, **data: Any) -> None:
        self._ids += 1
        event = SessionEvent(id=f"{_now_ms()}-{self._ids}", type=kind, at_ms=_now_ms(), data=data)
        found.events.append(event)
        found.record = replace(found.record, last_event=event.id)
        while found.waiters:
            found.waiters.pop().set()


def _ms(samples: int) -> int:
    return samples * 1000 // SAMPLE_RATE


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _key(event_id: str) -> tuple[int, int]:
    ms, _, number = event_id.partition("-")
    return int(ms), int(number)
