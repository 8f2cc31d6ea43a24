"""A session with damaged keys ends with a reason, and affects no other session."""

from __future__ import annotations

import pytest

from daybreak_server.adapters.redis.sessions.work import RedisSessionWork
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.sessions import (
    SessionEnd,
    SessionEventType,
    SessionId,
    SessionsMeasured,
    SessionState,
)
from daybreak_server.ports.sessions import SessionEndedError, SessionsFullError, SessionUnknownError
from daybreak_server.ports.store_errors import StoreRefusedError
from tests.store.sessions.conftest import Sessions, pcm, take
from tests.store.sessions.test_sessions import says

KEYS = ("session_text", "session_history", "session_turns", "session_audio")


def damage(sessions: Sessions, session: SessionId, name: str) -> None:
    """Replace a key of the session by a set, which is the wrong type."""
    key = sessions.driver.keys.of(name, session)
    sessions.driver.client.delete(key)
    sessions.driver.client.sadd(key, "x")


async def failed(sessions: Sessions, session: SessionId) -> None:
    """Assert that the session failed because it is damaged, that its last event says so, and that its audio is gone."""
    record = await sessions.get(session)
    assert (record.state, record.end) == (SessionState.ENDED, SessionEnd.FAILED)
    assert record.error is not None
    assert record.error.reason == "journal_damaged"
    last = (await sessions.store.session_events(session))[-1]
    assert last.type is SessionEventType.ENDED
    assert "damaged" in last.data["error"]["message"]
    assert sessions.driver.client.exists(sessions.driver.keys.of("session_audio", session)) == 0


@pytest.mark.parametrize("name", ["session_text", "session_history"])
async def test_a_commit_fails_for_its_own_session_only(sessions: Sessions, name: str) -> None:
    broken, other = await sessions.open(), await sessions.open()
    group = sessions.group()
    claims = {claim.lease.session: claim for claim in take(group)}
    damage(sessions, broken, name)
    lost = group.commit(
        [says(claims[broken], 1, "a"), says(claims[other], 1, "b"), says(claims[broken], 2, "c")]
    )
    assert set(lost) == {claims[broken].lease}
    await failed(sessions, broken)
    texts = [event.data["text"] for event in (await sessions.store.session_events(other))[1:]]
    assert texts == ["b"]


@pytest.mark.parametrize("name", KEYS)
async def test_a_claim_takes_the_others(sessions: Sessions, name: str) -> None:
    broken, other = await sessions.open(), await sessions.open()
    first = sessions.group()
    first.release_sessions([claim.lease for claim in take(first)])
    damage(sessions, broken, name)
    claims = take(sessions.group(), "g2")
    assert [claim.lease.session for claim in claims] == [other]
    await failed(sessions, broken)


async def test_audio_that_cannot_be_read_is_reported_to_its_group(sessions: Sessions) -> None:
    broken, other = await sessions.open(), await sessions.open()
    group = sessions.group()
    claims = {claim.lease.session: claim for claim in take(group)}
    damage(sessions, broken, "session_audio")
    await sessions.store.append_audio(other, pcm(1), at=0)
    news = {item.session: item for item in group.read_audio({c.lease: 0 for c in claims.values()}, wait_s=5)}
    assert news[other].audio == pcm(1)
    error = news[broken].error
    assert error is not None
    assert error.reason == "journal_damaged"
    with pytest.raises(SessionEndedError):
        await sessions.store.append_audio(broken, pcm(1), at=0)
    await failed(sessions, broken)


async def test_time_continues_when_a_record_is_gone(sessions: Sessions) -> None:
    """An administrator or an eviction policy may have deleted the record."""
    sessions.limit(timeout_s=10)
    gone, other = await sessions.open(), await sessions.open()
    group = sessions.group(lease_s=2)
    claims = take(group)
    sessions.driver.client.delete(sessions.driver.keys.of("session", gone))
    assert [record.session.id for record in await sessions.store.sessions("speech")] == [other]
    sessions.driver.pass_time(3000)
    assert (await sessions.get(other)).state is SessionState.WAITING
    sessions.driver.pass_time(10_000)
    group.renew_sessions(GroupId("g1"), [claim.lease for claim in claims], measured=SessionsMeasured())
    assert (await sessions.get(other)).end is SessionEnd.IDLE
    with pytest.raises(SessionUnknownError):
        await sessions.get(gone)
    assert (await sessions.store.sessions_overview("speech")).open == 0


async def test_a_session_without_a_record_counts_for_its_tenant_until_its_timeout(sessions: Sessions) -> None:
    sessions.limit(max_per_tenant=1, timeout_s=10)
    gone = await sessions.open()
    sessions.driver.client.delete(sessions.driver.keys.of("session", gone))
    with pytest.raises(SessionsFullError):
        await sessions.open()
    sessions.driver.pass_time(11_000)
    await sessions.open()


async def test_a_group_that_leaves_gives_up_the_others(sessions: Sessions) -> None:
    broken, other = await sessions.open(), await sessions.open()
    sessions.driver.register("g1")
    group = sessions.group()
    claims = take(group)
    damage(sessions, broken, "session_history")
    group.release_sessions([claim.lease for claim in claims])
    await failed(sessions, broken)
    assert (await sessions.get(other)).state is SessionState.WAITING


async def test_a_refused_permission_ends_no_session(sessions: Sessions) -> None:
    """The group retries until an administrator has corrected the permission."""
    session, client = await sessions.open(), sessions.driver.client
    (claim,) = take(sessions.group())
    client.execute_command("ACL", "SETUSER", "narrow", "on", ">secret", "~*", "&*", "+@all", "-append")
    url = sessions.url.replace("://", "://narrow:secret@", 1)
    narrow = RedisSessionWork(url, pool="speech", library=sessions.library)
    try:
        with pytest.raises(StoreRefusedError):
            narrow.commit([says(claim, 1, "a")])
        client.execute_command("ACL", "SETUSER", "narrow", "+append")
        assert narrow.commit([says(claim, 1, "a")]) == []
    finally:
        narrow.close()
        client.execute_command("ACL", "DELUSER", "narrow")
    assert (await sessions.get(session)).state is SessionState.ACTIVE
    assert [event.type.value for event in await sessions.store.session_events(session)] == ["started", "text"]
