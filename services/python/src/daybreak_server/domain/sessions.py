"""Streaming sessions as values: a session, its journal, and the commits of its group.

A session outlives the processes that serve it, because all of it is in its *journal* in Redis: the audio that the model
has not processed yet or still has in its window, the turns of that window, the text, and the events that the client
reads. A gateway writes audio to the journal and reads events from it. The group that owns the session reads audio and
writes events. The gateway and the group never connect to each other, so either may die.

A session moves to another group in three steps. Each is one script of the store:

1. ``session_release`` takes the session from its group. A group that drains calls it for as many sessions as other
   groups have room for, and for all that are left when its time to drain is over. The scripts ``group`` and ``tick`` do
   the same for a group that has ended, and for a session whose lease is lost. The session is then ``waiting``, and
   groups claim it before any new session. It has no token, so the old group can no longer write to it.
2. ``session_claim`` gives the session to a group that has room, with a new token, a new lease and the whole journal:
   the turns of the window and their audio, the audio after them, and the sentence in progress. The group feeds the
   turns to its model, and continues an incomplete turn after its last token.
3. ``session_commit`` writes what the new group computes. It refuses late commits of the old group, whose token is
   outdated.

The client sees the events ``waiting`` and ``started``. Then the text continues where it stopped.

Audio is 16-bit little-endian PCM, one channel, at ``SAMPLE_RATE``. Positions in it are numbers of samples since the
beginning of the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import AttemptToken, GroupId
from daybreak_server.domain.tracing import TraceContext

SessionId = NewType("SessionId", str)
"""The pool's name and a ULID, as in the ids of tasks: ``speech_01J…``."""

SAMPLE_RATE = 16_000
"""Samples a second of all audio in journals."""
SAMPLE_BYTES = 2


class SessionState(StrEnum):
    """States of a session."""

    WAITING = "waiting"
    """No group owns it, because it is new, or its group died or released it. Its audio is kept."""
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
    """Before the end of the input: no audio and no ping arrived for ``session_timeout_s``. After the end of the input:
    a group owned the session for that time, and the group's model did nothing."""
    FAILED = "failed"
    """It cannot continue, and its error says why: for example, the model failed, or several groups in a row were
    lost while they worked on it."""


class Intake(StrEnum):
    """Which sessions a group takes now."""

    ALL = "all"
    ORPHANS = "orphans"
    """Only orphans: sessions that have lost their group. The group lags too far for new sessions, but still takes
    these, so that they continue soon."""
    NONE = "none"


class SessionEventType(StrEnum):
    """The events of a session that its client reads."""

    STARTED = "started"
    """A group owns the session now: ``group``, ``attempt`` (1 for the first owner)."""
    TEXT = "text"
    """More text: ``text`` (append it to the earlier text), ``segment``, ``audio_ms`` (how much audio it is
    based on)."""
    SEGMENT = "segment"
    """A sentence is complete: ``segment`` (its number, from 0), ``text`` (all of it), ``start_ms``, ``end_ms``."""
    DEGRADED = "degraded"
    """The length of turns changed: ``latency_multiplier``, ``lag_ms``."""
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
    """The spoken language, as a code: ``en``."""
    target: str
    """The language of the text: ``de``. If it equals ``source``, the model transcribes."""
    latency_multiplier: int = 1
    """The minimum number of the model's blocks in a turn. If the model allows only fewer, its limit applies. A group
    that lags uses longer turns."""
    options: Mapping[str, Any] = field(default_factory=dict)
    client: str = ""
    """A name that the client gave the session; may be empty."""
    trace_context: TraceContext | None = None
    """The trace of the request that opens the session. Each group that owns the session continues this trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A session at one moment."""

    session: NewSession
    state: SessionState
    group: GroupId | None = None
    attempt: int = 0
    """How often groups have claimed the session."""
    opened_ms: int = 0
    touched_ms: int = 0
    """When audio or a ping last arrived; if there was none, when the session was opened."""
    received: int = 0
    """The position up to which the journal has audio."""
    consumed: int = 0
    """The position up to which the model has processed audio in complete turns."""
    input_ended: bool = False
    latency_multiplier: int = 1
    end: SessionEnd | None = None
    error: Cause | None = None
    last_event: str = "0-0"
    """The id of the session's newest event."""
    waiting_since_ms: int = 0
    """When it last lost a group; 0 if it has lost none."""
    lost_group: str = ""
    """The group that it lost last."""
    lost_reason: str = ""
    """Why it lost that group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent:
    """An event of a session. ``id`` is that of its entry in a Redis stream, so ids sort in the order of the events."""

    id: str
    type: SessionEventType
    at_ms: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of the model: a stretch of audio, and the tokens that the model wrote after it.

    The journal keeps the turns of the model's window, with their audio. A group that takes a session over
    replays them with its model, and then continues. An incomplete turn continues after its last token.
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
    token: AttemptToken


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClaim:
    """A session that a group has just claimed, with all data to continue it."""

    lease: SessionLease
    record: SessionRecord
    turns: tuple[Turn, ...]
    """The turns of the window, oldest first; none for a new session."""
    audio_start: int
    """The position of the first sample of ``audio``: where the oldest of ``turns`` begins, or ``record.consumed`` if
    there are no turns."""
    audio: bytes
    """All audio from ``audio_start`` to ``record.received``."""
    segment: int = 0
    """The number of the segment in progress."""
    segment_text: str = ""
    """The text of that segment so far."""
    segment_start: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCommit:
    """The writes of a group to a session in one step: events, and the data with which the next owner can
    continue."""

    lease: SessionLease
    number: int
    """The place of this commit among those of the lease, from 1. A commit whose number was written before
    changes nothing, so a commit whose answer was lost can be repeated."""
    events: tuple[tuple[SessionEventType, Mapping[str, Any]], ...] = ()
    turn: Turn | None = None
    """The newest turn. If the journal's newest turn has the same ``start``, this turn replaces it. Otherwise, this turn
    is appended."""
    keep_from: int | None = None
    """The first position that the model's window still needs; older turns and audio leave the journal."""
    latency_multiplier: int | None = None
    end: SessionEnd | None = None
    """Ends the session after the events; the event ``ended`` is written with them."""
    error: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsThroughput:
    """What the model of a group did per second, on average over the last seconds."""

    audio_s: float = 0.0
    """Seconds of audio that it read per second: 20 while 20 sessions speak without a pause."""
    tokens: float = 0.0
    """Tokens that it wrote."""
    batches: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsMeasured:
    """What a group measures of its sessions. Admission and the views of a pool use it."""

    lag_ms: float = 0.0
    """The 95th percentile of the lag of its sessions."""
    full: bool = False
    """The group accepts no new session, because its lag is above the limit although its turns have the maximum
    length. It still accepts sessions that have lost their group."""
    latency_multiplier: int = 1
    """The multiplier that the lag demands. A session keeps a larger multiplier if its client requested one."""
    room: int = 0
    """How many more sessions fit into its memory; 0 while it drains."""
    prefill: int = 0
    """Turns whose audio waits for the model."""
    decode: int = 0
    """Turns in progress that wait for their next token."""
    throughput: SessionsThroughput = SessionsThroughput()
    batches: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    """How many batches of each size it has run since it started, by phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSessions:
    """A group of a sessions pool: the number of its sessions, and its last measurements."""

    group: GroupId
    sessions: int
    measured: SessionsMeasured


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsOverview:
    """The sessions of a pool at one moment."""

    open: int
    waiting: int
    """The open sessions that no group owns."""
    groups: tuple[GroupSessions, ...] = ()

    @property
    def room(self) -> int:
        """How many more sessions the groups would take."""
        return sum(group.measured.room for group in self.groups if not group.measured.full)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionNews:
    """The new audio of a session that a group owns."""

    session: SessionId
    stale: bool = False
    """The group no longer owns the session, or the session has ended, so the group must drop it."""
    reason: str = ""
    """If ``stale``: why the session was released or has ended. Empty if the group knows no reason."""
    error: Cause | None = None
    """Why the session's audio can never be read; ``None`` if it can."""
    audio: bytes = b""
    """The audio that follows what the group has received."""
    input_ended: bool = False
