"""The store reports each change of a session's state to the process that made the change, with the session's trace."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.session_changes import SessionChange
from daybreak_server.domain.sessions import (
    SessionClaim,
    SessionCommit,
    SessionEnd,
    SessionEventType,
    SessionId,
    Turn,
)
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.observability.changes import log_change
from daybreak_server.observability.log_lines import json_formatter
from daybreak_server.observability.redaction import Redactor
from tests.store.sessions.conftest import Sessions, pcm, take

TRACE = TraceContext(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", tracestate="v=1")
SPOKEN = "the secret that was spoken"


def reported(sessions: Sessions) -> list[SessionChange]:
    return [change for change in sessions.driver.changes if isinstance(change, SessionChange)]


def shown(sessions: Sessions) -> list[tuple[Any, ...]]:
    return [
        (change.kind.value, change.attempt, change.group, change.reason, change.error)
        for change in reported(sessions)
    ]


def commit(claim: SessionClaim, number: int, **fields: Any) -> SessionCommit:
    return SessionCommit(lease=claim.lease, number=number, **fields)


async def lived(sessions: Sessions) -> SessionId:
    """A session that three groups have in turn: one releases it, one loses its lease, and one ends it as failed."""
    session = await sessions.open(trace_context=TRACE)
    await sessions.store.append_audio(session, pcm(1, 2), at=0)
    first, second, third = sessions.group(), sessions.group(), sessions.group()
    (claim,) = take(first, "g1")
    text = (SessionEventType.TEXT, {"text": SPOKEN, "segment": 0, "audio_ms": 0})
    first.commit([commit(claim, 1, events=(text,), turn=Turn(start=0, end=1))])
    first.commit([commit(claim, 2, latency_multiplier=2)])
    first.release_sessions([claim.lease])
    take(second, "g2")
    sessions.driver.pass_time(6000)
    (claim,) = take(third, "g3")
    cause = Cause(reason="session_failed", message=f"cannot continue {SPOKEN}")
    third.commit([commit(claim, 1, end=SessionEnd.FAILED, error=cause)])
    return session


async def test_each_change_is_reported_once_by_the_process_that_made_it(sessions: Sessions) -> None:
    session = await lived(sessions)
    assert shown(sessions) == [
        ("opened", 0, "", "", ""),
        ("claimed", 1, "g1", "", ""),
        ("degraded", 1, "g1", "", ""),
        ("released", 1, "g1", "released", ""),
        ("claimed", 2, "g2", "", ""),
        ("released", 2, "g2", "lease_lost", ""),
        ("claimed", 3, "g3", "", ""),
        ("ended", 3, "g3", "failed", "session_failed"),
    ]
    assert {change.session for change in reported(sessions)} == {session}
    assert {change.tenant for change in reported(sessions)} == {"default"}
    assert {change.trace_context for change in reported(sessions)} == {TRACE}
    assert [change.latency_multiplier for change in reported(sessions)].count(2) == 1


async def test_a_call_that_changes_nothing_reports_nothing(sessions: Sessions) -> None:
    """The calls are a repeated open, a second close, a late commit and a late release."""
    new = sessions.new()
    await sessions.store.open_session(new)
    (claim,) = take(sessions.group())
    work = sessions.group()
    await sessions.store.close_session(new.id)
    before = shown(sessions)
    await sessions.store.open_session(new)
    await sessions.store.close_session(new.id)
    assert [lease.session for lease in work.commit([commit(claim, 1, latency_multiplier=2)])] == [new.id]
    work.release_sessions([claim.lease])
    assert shown(sessions) == before
    assert before[-1][0] == "ended"


async def test_a_session_whose_group_left_and_that_then_got_no_audio_is_reported_twice(
    sessions: Sessions,
) -> None:
    await sessions.open()
    work = sessions.group(lease_s=1000.0)
    sessions.driver.register("g1")
    take(work, "g1")
    sessions.driver.deregister("g1", died=True)
    sessions.driver.pass_time(61_000)
    assert shown(sessions)[-2:] == [("released", 1, "g1", "left", ""), ("ended", 1, "", "idle", "")]


async def test_the_next_claim_has_the_trace_and_knows_why_it_was_needed(sessions: Sessions) -> None:
    session = await sessions.open(trace_context=TRACE)
    (claim,) = take(sessions.group(), "g1")
    assert (claim.record.waiting_since_ms, claim.record.lost_group) == (0, "")
    lost_at = sessions.driver.now + 5000
    sessions.driver.pass_time(6000)
    (claim,) = take(sessions.group(), "g2")
    record = claim.record
    assert (record.waiting_since_ms, record.lost_group, record.lost_reason) == (lost_at, "g1", "lease_lost")
    assert record.session.trace_context == TRACE
    assert (await sessions.get(session)).session.trace_context == TRACE


@pytest.mark.parametrize("how", ["closed", "idle", "released"])
async def test_a_group_learns_why_it_has_lost_a_session(sessions: Sessions, how: str) -> None:
    session, work = await sessions.open(), sessions.group(lease_s=1000.0)
    (claim,) = take(work)
    received = {claim.lease: 0}
    work.read_audio(received, wait_s=0)
    if how == "closed":
        await sessions.store.close_session(session)
    elif how == "idle":
        sessions.driver.pass_time(61_000)
    else:
        work.release_sessions([claim.lease])
    [news] = work.read_audio(received, wait_s=5)
    assert (news.stale, news.reason) == (True, how)


async def test_a_line_of_the_log_has_the_fields_and_no_text(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    session = await lived(sessions)
    with caplog.at_level(logging.INFO):
        for change in reported(sessions):
            log_change(change)
    formatter = json_formatter(Redactor(lambda: ()))
    lines = [json.loads(formatter.format(record)) for record in caplog.records]
    assert len(lines) == 8
    claimed, released, ended = lines[1], lines[5], lines[7]
    shared = {"session": session, "pool": "speech", "tenant": "default", "trace_id": TRACE.trace_id}
    assert shared.items() <= claimed.items()
    assert (claimed["level"], claimed["group"], claimed["attempt"]) == ("info", "g1", 1)
    assert (released["level"], released["reason"]) == ("warning", "lease_lost")
    assert (ended["level"], ended["reason"], ended["error"]) == ("warning", "failed", "session_failed")
    assert lines[2]["latency_multiplier"] == 2
    assert lines[3]["level"] == "info"
    assert SPOKEN not in str(lines)
