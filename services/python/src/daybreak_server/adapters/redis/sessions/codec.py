"""Converts the values of sessions to and from the form that the scripts use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from daybreak_server.adapters.redis.codec import mapping, text, trace_of
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import GroupId, pool_of
from daybreak_server.domain.sessions import (
    NewSession,
    SessionEnd,
    SessionEvent,
    SessionEventType,
    SessionId,
    SessionRecord,
    SessionsMeasured,
    SessionState,
    SessionsThroughput,
    Turn,
)


def record(shown: Sequence[Any]) -> SessionRecord:
    """A session that a script returned as ``{id, fields}``."""
    session, r = SessionId(text(shown[0])), mapping(shown[1])
    group, error = r.get("group"), json.loads(r.get("error", "null"))
    return SessionRecord(
        session=NewSession(
            id=session,
            pool=pool_of(session) or "",
            tenant=r["tenant"],
            source=r["source"],
            target=r["target"],
            latency_multiplier=int(r["requested_multiplier"]),
            options=json.loads(r["options"]),
            client=r["client"],
            trace_context=trace_of(r.get("trace", "")),
        ),
        state=SessionState(r["state"]),
        group=None if group is None else GroupId(group),
        attempt=int(r.get("attempt", 0)),
        opened_ms=int(r["opened"]),
        touched_ms=int(r["touched"]),
        received=int(r["received"]),
        consumed=int(r["consumed"]),
        input_ended="input_ended" in r,
        latency_multiplier=int(r["multiplier"]),
        end=SessionEnd(r["end"]) if "end" in r else None,
        error=None if error is None else Cause(reason=error["code"], message=error["message"]),
        last_event=r.get("last_event", "0-0"),
        waiting_since_ms=int(r.get("waits_since", 0)),
        lost_group=r.get("lost_group", ""),
        lost_reason=r.get("lost_reason", ""),
    )


def error_json(error: Cause | None) -> str:
    """The form in which records and events store an error. It is empty if there is no error."""
    return "" if error is None else compact({"code": error.reason, "message": error.message})


def event(entry: Any, fields: Mapping[bytes, bytes]) -> SessionEvent:
    """An event from an entry of a stream."""
    entry_id = text(entry)
    return SessionEvent(
        id=entry_id,
        type=SessionEventType(text(fields[b"type"])),
        at_ms=int(entry_id.partition("-")[0]),
        data=json.loads(fields[b"data"]),
    )


def turn_text(turn: Turn) -> str:
    """The form in which the journal stores a turn: ``start end complete last token,token``."""
    return f"{turn.start} {turn.end} {int(turn.complete)} {int(turn.last)} {','.join(map(str, turn.tokens))}"


def turn(stored: Any) -> Turn:
    """The inverse of :func:`turn_text`."""
    start, end, complete, last, tokens = text(stored).split(" ")
    return Turn(
        start=int(start),
        end=int(end),
        complete=complete == "1",
        last=last == "1",
        tokens=tuple(int(token) for token in tokens.split(",") if token),
    )


def measured(stored: Any) -> SessionsMeasured:
    """The measurements of a group, from an entry of ``session_groups``."""
    lag_ms, full, multiplier, room, prefill, decode, rates, batches, _ends = text(stored).split(" ")
    audio_s, tokens, per_s = map(float, rates.split(","))
    return SessionsMeasured(
        lag_ms=float(lag_ms),
        full=full == "1",
        latency_multiplier=int(multiplier),
        room=int(room),
        prefill=int(prefill),
        decode=int(decode),
        throughput=SessionsThroughput(audio_s=audio_s, tokens=tokens, batches=per_s),
        batches={
            phase: {int(size): count for size, count in sizes.items()}
            for phase, sizes in json.loads(batches).items()
        },
    )


def rates_text(throughput: SessionsThroughput) -> str:
    """The part of an entry of ``session_groups`` that :func:`measured` reads as the throughput."""
    return f"{throughput.audio_s:.3f},{throughput.tokens:.3f},{throughput.batches:.3f}"


def compact(value: Any) -> str:
    """JSON without spaces after commas and colons."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
