"""Builds the calls of the scripts for sessions, and decodes the replies of these scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daybreak_server.adapters.redis.arguments import (
    SessionAudio,
    SessionClaiming,
    SessionClosing,
    SessionDraft,
    SessionOpening,
    SessionRenewal,
    SessionWrite,
)
from daybreak_server.adapters.redis.codec import mapping, text, trace_text
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Arg, Call
from daybreak_server.adapters.redis.sessions import codec
from daybreak_server.domain.ids import AttemptToken, GroupId
from daybreak_server.domain.sessions import (
    SAMPLE_BYTES,
    SAMPLE_RATE,
    NewSession,
    SessionClaim,
    SessionCommit,
    SessionEnd,
    SessionEventType,
    SessionId,
    SessionLease,
    SessionRecord,
    SessionsMeasured,
)
from daybreak_server.ports.sessions import (
    TENANT_LIMIT,
    AudioBacklogError,
    AudioGapError,
    SessionEndedError,
    SessionsFullError,
    SessionUnknownError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """The limits of a pool's sessions."""

    max_sessions: int = 1000
    max_per_tenant: int = 1000
    timeout_s: float = 300.0
    """How long a session lives without audio or a ping, and how long its record is kept after its end."""
    target_load: float = 32.0
    """How many sessions one group should have, unless the GeneratorPool sets another number."""


def open_session(keys: Keys, new: NewSession, limits: SessionLimits) -> Call:
    """``session_open``."""
    opening = SessionOpening(
        session=new.id,
        tenant=new.tenant,
        source=new.source,
        target=new.target,
        multiplier=new.latency_multiplier,
        options=codec.compact(dict(new.options)),
        client=new.client,
        trace=trace_text(new.trace_context),
        max_sessions=limits.max_sessions,
        max_per_tenant=limits.max_per_tenant,
        timeout_ms=round(limits.timeout_s * 1000),
        target_load=limits.target_load,
    )
    return Call("session_open", keys, opening)


def opened(reply: Sequence[Any], pool: str) -> SessionRecord:
    """The session. :raises SessionsFullError: when the pool has no room, or the tenant has too many sessions."""
    if text(reply[0]) == "session":
        return codec.record(reply[1])
    _, why, retry_ms, sessions = reply
    reasons = {
        "limit": f"it has {sessions} open sessions, which is its limit (sessions.max_sessions)",
        "lag": f"its groups cannot keep up with the {sessions} sessions that are open",
        TENANT_LIMIT: f"the tenant has {sessions} open sessions, which is its limit (http.max_sessions_per_tenant)",
    }
    raise SessionsFullError(
        f"the pool {pool} takes no further session now: {reasons[text(why)]}; try again later",
        reason=text(why),
        retry_after_s=int(retry_ms) / 1000,
    )


def append(keys: Keys, session: SessionId, samples: bytes, *, at: int, end: bool) -> Call:
    """``session_append``. :raises ValueError: when ``samples`` or ``at`` cannot be audio."""
    if len(samples) % SAMPLE_BYTES or at < 0:
        raise ValueError(f"{len(samples)} bytes at position {at} are not 16-bit samples")
    return Call("session_append", keys, SessionAudio(session=session, at=at, samples=samples, ends=int(end)))


def appended(reply: Sequence[Any], session: SessionId) -> SessionRecord:
    """The session. :raises StoreError: when the reply reports an error."""
    match text(reply[0]):
        case "session":
            return codec.record(reply[1])
        case "gap":
            received = int(reply[1])
            raise AudioGapError(
                f"audio of session {session} is missing: send it from sample {received}", received=received
            )
        case "backlog":
            raise AudioBacklogError(
                f"session {session} has too much audio that its model has not processed yet; send more later"
            )
        case "ended":
            raise SessionEndedError(f"session {session} has ended: {text(reply[1])}")
    raise unknown(session)


def unknown(session: str) -> SessionUnknownError:
    """The error for a session that does not exist."""
    return SessionUnknownError(f"there is no session {session}")


def close(keys: Keys, session: SessionId, reason: SessionEnd, *, target_load: float) -> Call:
    """``session_close``."""
    closing = SessionClosing(session=session, reason=reason.value, target_load=target_load)
    return Call("session_close", keys, closing)


def claim(
    keys: Keys, group: GroupId, *, nonce: str, lease_s: float, room: int, orphans_only: bool = False
) -> Call:
    """``session_claim``."""
    claiming = SessionClaiming(
        group=group,
        nonce=nonce,
        lease_ms=round(lease_s * 1000),
        room=room,
        orphans_only=int(orphans_only),
    )
    return Call("session_claim", keys, claiming)


def claim_without_audio(item: Sequence[Any]) -> SessionClaim:
    """One claim from the reply of ``session_claim``. The audio is read separately."""
    fields = mapping(item[1])
    record, turns = codec.record(item), tuple(map(codec.turn, item[2]))
    return SessionClaim(
        lease=SessionLease(session=record.session.id, token=AttemptToken(fields["token"])),
        record=record,
        turns=turns,
        audio_start=turns[0].start if turns else record.consumed,
        audio=b"",
        segment=int(fields.get("segment", 0)),
        segment_text=text(item[3]),
        segment_start=int(fields.get("segment_start", 0)),
    )


def renew(
    keys: Keys,
    group: GroupId,
    leases: Sequence[SessionLease],
    measured: SessionsMeasured,
    *,
    nonce: str,
    lease_s: float,
) -> Call:
    """``session_renew``."""
    renewal = SessionRenewal(
        group=group,
        nonce=nonce,
        lease_ms=round(lease_s * 1000),
        lag_ms=round(measured.lag_ms),
        full=int(measured.full),
        multiplier=measured.latency_multiplier,
        room=measured.room,
        prefill=measured.prefill,
        decode=measured.decode,
        rates=codec.rates_text(measured.throughput),
        batches=codec.compact(measured.batches),
    )
    return Call("session_renew", keys, (*renewal, *_pairs(leases)))


def release(keys: Keys, leases: Sequence[SessionLease]) -> Call:
    """``session_release``."""
    return Call("session_release", keys, tuple(_pairs(leases)))


def commit(keys: Keys, commits: Sequence[SessionCommit]) -> Call:
    """``session_commit``."""
    args: list[Arg] = []
    for written in commits:
        args += _write(written)
        for kind, data in written.events:
            args += _draft(kind, data)
    return Call("session_commit", keys, args)


def lost(reply: Sequence[Any], leases: Sequence[SessionLease]) -> list[SessionLease]:
    """Those of ``leases`` whose sessions are listed in the reply of a script."""
    sessions = set(map(text, reply))
    return [lease for lease in leases if lease.session in sessions]


def _pairs(leases: Sequence[SessionLease]) -> list[str]:
    return [word for lease in leases for word in (lease.session, lease.token)]


def _write(commit: SessionCommit) -> SessionWrite:
    turn = commit.turn
    return SessionWrite(
        session=commit.lease.session,
        token=commit.lease.token,
        number=commit.number,
        turn="" if turn is None else codec.turn_text(turn),
        turn_start="" if turn is None else turn.start,
        consumed=turn.end if turn is not None and turn.complete else "",
        keep_from="" if commit.keep_from is None else commit.keep_from,
        multiplier="" if commit.latency_multiplier is None else commit.latency_multiplier,
        ends="" if commit.end is None else commit.end.value,
        error=codec.error_json(commit.error),
        events=len(commit.events),
    )


def _draft(kind: SessionEventType, data: Mapping[str, Any]) -> SessionDraft:
    if kind is SessionEventType.SEGMENT:
        return SessionDraft(
            type=kind.value,
            data=codec.compact(data),
            segment=data["segment"] + 1,
            segment_start=data["end_ms"] * SAMPLE_RATE // 1000,
        )
    added = data["text"] if kind is SessionEventType.TEXT else ""
    return SessionDraft(type=kind.value, data=codec.compact(data), text=added)
