"""A process follows the sessions of many clients over one connection to Redis, and groups wait without polling."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from daybreak_server.adapters.redis.sessions import events as session_events
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.sessions import SessionEvent, SessionEventType, SessionId
from testkit.store_driver import Driver
from tests.store.sessions.conftest import Sessions, pcm, take
from tests.store.sessions.test_sessions import says


async def read(events: AsyncIterator[SessionEvent], until: str) -> list[str]:
    """Read the events up to one of the type ``until``. :returns: the text of each, or its type if it has no text."""
    texts = []
    async for event in events:
        texts.append(event.data.get("text", event.type.value))
        if event.type == until:
            break
    return texts


async def until_true(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not ready():
            await asyncio.sleep(0.01)


def blocked(driver: Driver, command: str) -> int:
    """How many connections of the server wait in ``command``."""
    return sum(client["cmd"] == command and "b" in client["flags"] for client in driver.client.client_list())


async def test_each_follower_gets_its_own_events_over_one_connection(sessions: Sessions) -> None:
    opened = [await sessions.open() for _ in range(5)]
    group = sessions.group()
    claims = {claim.lease.session: claim for claim in take(group)}
    async with asyncio.TaskGroup() as tasks:
        readers = [
            tasks.create_task(read(sessions.events.follow_session(session), "ended")) for session in opened
        ]
        await until_true(lambda: blocked(sessions.driver, "xread") == 1)
        for number in range(1, 4):
            group.commit([says(claims[session], number, f"{session} {number}") for session in opened])
        clients = sessions.driver.client.client_list()
        assert sum(client["cmd"] == "xread" for client in clients) == 1
        for session in opened:
            await sessions.store.close_session(session)
    for session, reader in zip(opened, readers, strict=True):
        texts = [f"{session} {number}" for number in range(1, 4)]
        assert reader.result() == ["started", *texts, "".join(texts)]
    await until_true(lambda: blocked(sessions.driver, "xread") == 0)


async def test_a_follower_continues_after_the_event_that_it_has(sessions: Sessions) -> None:
    session, group = await sessions.open(), sessions.group()
    (claim,) = take(group)
    for number in range(1, 6):
        group.commit([says(claim, number, str(number))])
    seen = (await sessions.store.session_events(session))[3]
    await sessions.store.close_session(session)
    assert await read(sessions.events.follow_session(session, after=seen.id), "ended") == ["4", "5", "12345"]


async def test_a_slow_follower_reads_the_history(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_events, "_QUEUE_MAX", 5)
    session, group = await sessions.open(), sessions.group()
    (claim,) = take(group)
    follower = sessions.events.follow_session(session)
    assert (await anext(follower)).type is SessionEventType.STARTED
    for number in range(1, 31):
        group.commit([says(claim, number, f"{number} ")])
    await asyncio.sleep(0.1)  # so that events pile up; the test also passes without this pause
    await sessions.store.close_session(session)
    assert (await read(follower, "ended"))[:-1] == [f"{number} " for number in range(1, 31)]


async def test_followers_survive_an_outage(sessions: Sessions) -> None:
    session, group = await sessions.open(), sessions.group()
    (claim,) = take(group)
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(read(sessions.events.follow_session(session), "ended"))
        await until_true(lambda: blocked(sessions.driver, "xread") == 1)
        sessions.driver.client.client_kill_filter(_type="normal", skipme=True)
        group.commit([says(claim, 1, "during ")])
        await until_true(lambda: blocked(sessions.driver, "xread") == 1)
        group.commit([says(claim, 2, "after")])
        await sessions.store.close_session(session)
    assert reader.result() == ["started", "during ", "after", "during after"]


async def test_an_idle_group_is_woken_by_a_new_session(sessions: Sessions) -> None:
    group, found = sessions.group(), []
    waiting = threading.Thread(
        target=lambda: found.extend(group.claim_sessions(GroupId("g1"), room=4, wait_s=30)), daemon=True
    )
    waiting.start()
    await until_true(lambda: blocked(sessions.driver, "blpop") == 1)
    began = time.monotonic()
    session = await sessions.open()
    await asyncio.to_thread(waiting.join, 20)
    assert [claim.lease.session for claim in found] == [session]
    assert time.monotonic() - began < 4.5, "the group found the session by polling"


async def test_a_waiting_group_is_woken_by_audio(sessions: Sessions) -> None:
    session, group = await sessions.open(), sessions.group()
    (claim,) = take(group)
    group.read_audio({claim.lease: 0}, wait_s=0)  # the first call looks at all sessions
    reading = asyncio.create_task(asyncio.to_thread(group.read_audio, {claim.lease: 0}, wait_s=30))
    await until_true(lambda: blocked(sessions.driver, "xread") == 1)
    await sessions.store.append_audio(session, pcm(7), at=0)
    (news,) = await reading
    assert (news.session, news.audio) == (SessionId(session), pcm(7))
