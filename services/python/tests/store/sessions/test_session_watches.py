"""A gateway that waits for the progress of a session sees this progress at once.

A commit announces progress only if a gateway waits for it.
"""

from __future__ import annotations

import asyncio

import pytest

from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.sessions import events as session_events
from daybreak_server.domain.sessions import SessionClaim, SessionCommit, SessionId, SessionRecord, Turn
from daybreak_server.ports.sessions import SessionUnknownError
from tests.store.sessions.conftest import POOL, Sessions, pcm, take
from tests.store.sessions.test_session_events import blocked, until_true

LONG_S = 30.0


@pytest.fixture(autouse=True)
def no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch waits longer for an announcement than a test lasts. So a test fails if an announcement is missing."""
    monkeypatch.setattr(session_events, "_LOOK_S", LONG_S)


def completes(claim: SessionClaim, number: int) -> SessionCommit:
    """A commit that ends a turn of one sample and writes no event."""
    return SessionCommit(lease=claim.lease, number=number, turn=Turn(start=number - 1, end=number))


async def until_consumed(sessions: Sessions, session: SessionId, position: int) -> SessionRecord:
    async with asyncio.timeout(LONG_S / 2), sessions.events.watch_session(session, tenant="default") as watch:
        while (record := await watch.read()).consumed < position and record.end is None:
            await watch.progress()
        return record


def announced(sessions: Sessions) -> int:
    """The number of announcements in the pool's stream. (The stream also has entries for events.)"""
    entries = sessions.driver.client.xrange(Keys(prefix="daybreak", pool=POOL).single("session_events"))
    return sum(b"consumed" in fields or "consumed" in fields for _, fields in entries)


async def until_watched(sessions: Sessions, session: SessionId) -> None:
    """Wait until a gateway has read the session and waits for its progress."""
    key = Keys(prefix="daybreak", pool=POOL).of("session", session)
    await until_true(lambda: sessions.driver.client.hexists(key, "watched") == 1)


async def claimed(sessions: Sessions) -> tuple[SessionId, SessionClaim]:
    session = await sessions.open()
    await sessions.store.append_audio(session, pcm(*range(9)), at=0)
    (claim,) = take(sessions.group())
    return session, claim


async def test_a_turn_without_text_wakes_the_gateway(sessions: Sessions) -> None:
    session, claim = await claimed(sessions)
    waiting = asyncio.create_task(until_consumed(sessions, session, 2))
    await until_watched(sessions, session)
    for number in (1, 2):
        sessions.groups[0].commit([completes(claim, number)])
    assert (await waiting).consumed == 2
    await until_true(lambda: blocked(sessions.driver, "xread") == 0)


async def test_the_end_wakes_the_gateway(sessions: Sessions) -> None:
    session, _ = await claimed(sessions)
    waiting = asyncio.create_task(until_consumed(sessions, session, 9))
    await until_watched(sessions, session)
    await sessions.store.close_session(session)
    assert (await waiting).end == "closed"


async def test_an_outage_loses_no_progress(sessions: Sessions) -> None:
    session, claim = await claimed(sessions)
    waiting = asyncio.create_task(until_consumed(sessions, session, 1))
    await until_watched(sessions, session)
    sessions.driver.client.client_kill_filter(_type="normal", skipme=True)
    sessions.groups[0].commit([completes(claim, 1)])
    assert (await waiting).consumed == 1


async def test_turns_cost_no_entry_unless_a_gateway_waits(sessions: Sessions) -> None:
    session, claim = await claimed(sessions)
    group = sessions.groups[0]
    group.commit([completes(claim, 1)])
    assert announced(sessions) == 0
    await sessions.store.announce_progress(session, tenant="default")
    group.commit([completes(claim, 2)])
    group.commit([completes(claim, 3)])
    assert announced(sessions) == 1


async def test_the_session_of_another_tenant_cannot_be_watched(sessions: Sessions) -> None:
    session = await sessions.open()
    with pytest.raises(SessionUnknownError):
        await sessions.store.announce_progress(session, tenant="other")
