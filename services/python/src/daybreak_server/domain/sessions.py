"""Streaming sessions as values: what a client opens, what its journal holds, and what its group commits.

A session outlives the processes that serve it, because all of it is in its *journal* in Redis: the audio that the model
has not heard yet or still has in its window, the turns of that window, and the events that the client reads. A gateway
writes audio to the journal and reads events from it; the group that owns the session does the opposite. They never talk
to each other, so either may die.

Audio is 16-bit little-endian PCM, one channel, at ``SAMPLE_RATE``. Positions in it are numbers of samples since the
beginning of the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import GroupId, Token

SessionId = NewType("SessionId", str)
"""The pool's name and a ULID, as in the ids of tasks: ``speech_01J…``."""

SAMPLE_RATE = 16_000
"""Samples a second of all audio in journals."""
SAMPLE_BYTES = 2


class SessionState(StrEnum):
    """States of a session."""

    WAITING = "waiting"
    """No group owns it: it is new, or its group died or gave it up. Its audio is kept."""
    ACTIVE = "active"
    """A group owns it."""
    ENDED = "ended"


class SessionEnd(StrEnum):
    """Why a session ended."""

    FINISHED = "finished"
    """The client ended its audio, and the model has processed all of it."""
    CLOSED = "closed"
    """The client closed it, or an administrator did."""
    IDLE = "idle"
    """No audio came for ``session_timeout_s``."""
    FAILED = "failed"
    """The model cannot continue it."""


class SessionEventType(StrEnum):
    """What happens in a session, as its client reads it."""

    STARTED = "started"
    """A group owns the session now: ``group``, ``attempt`` (1 for the first owner)."""
    TEXT = "text"
    """More text: ``text`` (append it to what came before), ``segment``, ``audio_ms`` (how much audio it is
    based on)."""
    SEGMENT = "segment"
    """A sentence is complete: ``segment`` (its number, from 0), ``text`` (all of it), ``start_ms``, ``end_ms``."""
    DEGRADED = "degraded"
    """The group works in longer or shorter chunks from now on: ``latency_multiplier``, ``lag_ms``."""
    WAITING = "waiting"
    """The session has no group at the moment: ``reason``."""
    ENDED = "ended"
    """The last event: ``reason`` (a :class:`SessionEnd`), ``text`` (all of the session), ``error`` if it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """A session to open."""

    id: SessionId
    pool: str
    tenant: str
    source: str
    """The language that is spoken, as a code: ``en``."""
    target: str
    """The language of the text: ``de``. Equal to ``source``, the model transcribes."""
    latency_multiplier: int = 1
    """How many of the model's blocks of audio make a turn, until the group degrades it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    client: str = ""
    """A name that the client gave the session; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A session at one moment."""

    session: NewSession
    state: SessionState
    group: GroupId | None = None
    attempt: int = 0
    """How many groups have owned it."""
    opened_ms: int = 0
    touched_ms: int = 0
    """When audio last came, or the session was opened or resumed."""
    received: int = 0
    """The position up to which the journal has audio."""
    consumed: int = 0
    """The position up to which the model has worked audio off in complete turns."""
    input_ended: bool = False
    latency_multiplier: int = 1
    end: SessionEnd | None = None
    error: Cause | None = None
    last_event: str = "0-0"
    """The id of the session's newest event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent:
    """An event of a session. ``id`` is the one of Redis's stream, so ids sort in the order of the events."""

    id: str
    type: SessionEventType
    at_ms: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of the model: a stretch of audio, and the tokens that it wrote after hearing it.

    The journal keeps the turns of the model's window, with their audio. A group that takes a session over feeds them to
    its model as they are, and then continues. An incomplete turn is continued after its last token.
    """

    start: int
    """Position of its first sample."""
    end: int
    tokens: tuple[int, ...] = ()
    complete: bool = True
    last: bool = False
    """No audio follows, because the client has ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLease:
    """A group's right to write to a session. A write with an outdated token changes nothing."""

    session: SessionId
    token: Token


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClaim:
    """A session that a group has just taken, with all that it needs to continue it."""

    lease: SessionLease
    record: SessionRecord
    turns: tuple[Turn, ...]
    """The turns of the window, oldest first; none for a new session."""
    audio_start: int
    """The position of the first sample of ``audio``: where the oldest of ``turns`` begins, or ``record.consumed``."""
    audio: bytes
    """All audio from there to ``record.received``."""
    segment: int = 0
    """The number of the segment in progress."""
    segment_text: str = ""
    """The text of that segment so far."""
    segment_start: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCommit:
    """What a group writes to a session in one step: events, and what the next owner needs to continue after them."""

    lease: SessionLease
    number: int
    """The place of this commit among those of the lease, from 1. A number that was written before changes nothing, so a
    commit whose answer was lost is repeated as it was."""
    events: tuple[tuple[SessionEventType, Mapping[str, Any]], ...] = ()
    turn: Turn | None = None
    """The newest turn: replaces the one with the same ``start`` in the journal, or follows it."""
    keep_from: int | None = None
    """The first position that the model's window still needs; older turns and audio leave the journal."""
    latency_multiplier: int | None = None
    end: SessionEnd | None = None
    """Ends the session after the events; the event ``ended`` is written with them."""
    error: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsMeasured:
    """What a group has measured of its sessions. Admission and the views of a pool use it."""

    lag_ms: float = 0.0
    """How far behind its sessions are: the 95th percentile."""
    full: bool = False
    """The group takes no further session, because its lag is above the limit and it cannot degrade further."""
    latency_multiplier: int = 1
    """The largest multiplier of its sessions."""
    room: int = 0
    """How many more sessions fit into its memory."""
    prefill: int = 0
    """Turns whose audio waits for the model."""
    decode: int = 0
    """Turns in progress that wait for their next token."""
    batches: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """How many batches of each size it has run since it started, by phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSessions:
    """A group of a sessions pool: how many sessions it owns, and what it last measured."""

    group: GroupId
    sessions: int
    measured: SessionsMeasured


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsOverview:
    """The sessions of a pool at one moment."""

    open: int
    waiting: int
    """Those of them that no group owns."""
    groups: tuple[GroupSessions, ...] = ()

    @property
    def room(self) -> int:
        """How many more sessions the groups would take."""
        return sum(group.measured.room for group in self.groups if not group.measured.full)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionNews:
    """What has come for a session that a group owns."""

    session: SessionId
    stale: bool = False
    """The session belongs to another group now, or has ended: forget it."""
    audio: bytes = b""
    """The audio that follows what the group has received."""
    input_ended: bool = False
