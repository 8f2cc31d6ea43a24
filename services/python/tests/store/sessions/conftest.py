"""A pool of streaming sessions on a real server, with a clock that tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from daybreak_server.adapters.redis.scripts import Library
from daybreak_server.adapters.redis.sessions.calls import SessionLimits
from daybreak_server.adapters.redis.sessions.events import RedisSessionEvents
from daybreak_server.adapters.redis.sessions.store import RedisSessionStore
from daybreak_server.adapters.redis.sessions.work import RedisSessionWork
from daybreak_server.domain.ids import GroupId, ulid
from daybreak_server.domain.sessions import Intake, NewSession, SessionClaim, SessionId, SessionRecord
from testkit.store_driver import TEST_CLOCK, Driver
from testkit.valkey import Server

POOL = "speech"


class Sessions:
    """The store, a way to make groups, and the clock."""

    def __init__(self, server: Server, driver: Driver) -> None:
        self.driver = driver
        self.limits = SessionLimits(max_sessions=100, timeout_s=60, target_load=4)
        self.library = Library(clock_text=TEST_CLOCK)
        self.url = server.url
        self.store = RedisSessionStore(
            server.url,
            limits=lambda _pool: self.limits,
            library=self.library,
            on_change=driver.changes.append,
        )
        self.events = RedisSessionEvents(server.url, self.store)
        self.groups: list[RedisSessionWork] = []

    def limit(self, **limits: Any) -> None:
        self.limits = replace(self.limits, **limits)

    def group(self, *, lease_s: float = 5.0) -> RedisSessionWork:
        """The store as a new group uses it."""
        work = RedisSessionWork(
            self.url,
            pool=POOL,
            lease_s=lease_s,
            library=self.library,
            on_change=self.driver.changes.append,
        )
        self.groups.append(work)
        return work

    def new(self, **fields: Any) -> NewSession:
        defaults: dict[str, Any] = {
            "id": SessionId(f"{POOL}_{ulid(at_ms=self.driver.now)}"),
            "pool": POOL,
            "tenant": "default",
            "source": "en",
            "target": "de",
        }
        return NewSession(**(defaults | fields))

    async def open(self, **fields: Any) -> SessionId:
        record = await self.store.open_session(self.new(**fields))
        return record.session.id

    async def get(self, session: SessionId, *, tenant: str = "default") -> SessionRecord:
        return await self.store.session(session, tenant=tenant)

    async def types(self, session: SessionId) -> list[str]:
        return [event.type.value for event in await self.store.session_events(session)]

    async def close(self) -> None:
        await self.events.close()
        await self.store.close()
        for group in self.groups:
            group.close()


def take(
    work: RedisSessionWork, name: str = "g1", *, room: int = 8, intake: Intake = Intake.ALL
) -> list[SessionClaim]:
    """Claim the sessions that wait."""
    return list(work.claim_sessions(GroupId(name), room=room, wait_s=0, intake=lambda: intake))


@pytest.fixture
def driver(server: Server) -> Iterator[Driver]:
    driver = Driver(server.url, pool=POOL, target_load=4)
    driver.tick()
    yield driver
    driver.close()


@pytest_asyncio.fixture
async def sessions(server: Server, driver: Driver) -> AsyncIterator[Sessions]:
    sessions = Sessions(server, driver)
    yield sessions
    await sessions.close()


def pcm(*samples: int) -> bytes:
    """Audio with these samples."""
    return b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)
