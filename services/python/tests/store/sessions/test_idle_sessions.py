"""When a session ends because its client sends nothing, and when it stays open."""

from __future__ import annotations

import pytest

from daybreak_server.adapters.redis.limits import SESSION_BACKLOG_MAX
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.sessions import SessionEnd, SessionsMeasured
from daybreak_server.ports.sessions import AudioBacklogError
from tests.store.sessions.conftest import Sessions, pcm, take


async def test_silence_ends_a_session(sessions: Sessions) -> None:
    sessions.limit(timeout_s=10)
    session = await sessions.open()
    sessions.driver.pass_time(9000)
    await sessions.store.append_audio(session, pcm(1), at=0)
    sessions.driver.pass_time(9000)
    assert (await sessions.get(session)).end is None
    sessions.driver.pass_time(1000)
    assert (await sessions.get(session)).end is SessionEnd.IDLE


async def test_a_session_that_never_gets_audio_is_idle(sessions: Sessions) -> None:
    sessions.limit(timeout_s=10)
    session = await sessions.open()
    sessions.driver.pass_time(10_000)
    assert (await sessions.get(session)).end is SessionEnd.IDLE


async def test_a_session_whose_input_has_ended_waits_for_a_group_however_long(sessions: Sessions) -> None:
    """The store has all audio of the session. The timeout starts again at the moment a group claims the session."""
    sessions.limit(timeout_s=10)
    session = await sessions.open()
    await sessions.store.append_audio(session, pcm(1), at=0, end=True)
    for _ in range(5):
        sessions.driver.pass_time(9000)
    assert (await sessions.get(session)).end is None
    group = sessions.group()
    (claim,) = take(group)
    for _ in range(3):
        sessions.driver.pass_time(3000)
        assert group.renew_sessions(GroupId("g1"), [claim.lease], measured=SessionsMeasured()) == []
    assert (await sessions.get(session)).end is None
    sessions.driver.pass_time(1000)
    assert (await sessions.get(session)).end is SessionEnd.IDLE


async def test_audio_that_finds_no_room_keeps_a_session_alive(sessions: Sessions) -> None:
    """The gateway repeats the write while the client waits."""
    sessions.limit(timeout_s=10)
    session = await sessions.open()
    await sessions.store.append_audio(session, bytes(2 * SESSION_BACKLOG_MAX), at=0)
    for _ in range(3):
        sessions.driver.pass_time(9000)
        with pytest.raises(AudioBacklogError):
            await sessions.store.append_audio(session, pcm(1), at=SESSION_BACKLOG_MAX)
    assert (await sessions.get(session)).end is None


async def test_an_append_without_new_audio_keeps_a_session_alive(sessions: Sessions) -> None:
    sessions.limit(timeout_s=10)
    session = await sessions.open()
    await sessions.store.append_audio(session, pcm(1), at=0)
    for samples, at in ((b"", 1), (pcm(1), 0)):
        sessions.driver.pass_time(9000)
        kept = await sessions.store.append_audio(session, samples, at=at)
        assert (kept.received, kept.touched_ms) == (1, sessions.driver.now)
    assert (await sessions.get(session)).end is None
    sessions.driver.pass_time(10_000)
    assert (await sessions.get(session)).end is SessionEnd.IDLE
