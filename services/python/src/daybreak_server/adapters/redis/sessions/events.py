"""Follows the events of many sessions over one connection for each pool.

While anyone follows or watches a session of the pool, an asyncio task reads the pool's stream `session_events`, and
passes each event to the followers of its session. A new follower first reads the session's history. If the asyncio task
may have missed events (because of an outage, or because the stream was trimmed before they were read), all followers
read the histories of their sessions again. Two kinds of entries of the stream wake the watches of a session: the event
``ended``, and the entry that a commit writes when the model has processed audio of a watched session.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from daybreak_server.adapters.redis.client import connect_async, translated
from daybreak_server.adapters.redis.codec import text
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.sessions import calls, codec
from daybreak_server.domain.ids import pool_of
from daybreak_server.domain.sessions import SessionEvent, SessionEventType, SessionId, SessionRecord
from daybreak_server.ports.sessions import SessionStore, SessionWatch
from daybreak_server.ports.store_errors import StoreUnavailableError

log = logging.getLogger(__name__)

BLOCK_S = 5.0
_COUNT = 1000
_BACKOFF_S = (0.1, 0.25, 0.5, 1.0, 2.0)
_LOOK_S = 5.0
"""The longest time for which a watch waits, in case a group with an older version announces nothing."""
_QUEUE_MAX = 1000
"""The maximum number of unread events of a follower. If there are more, the follower reads the history."""


class _Follower:
    """The unread events of one follower, or ``None`` if the follower must read the history."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[SessionEvent | None] = asyncio.Queue()

    def put(self, event: SessionEvent | None) -> None:
        """Add an event. If the follower is too slow, ``None`` replaces all its unread events."""
        if event is None or self.queue.qsize() >= _QUEUE_MAX:
            while not self.queue.empty():
                self.queue.get_nowait()
            event = None
        self.queue.put_nowait(event)


class _Watch:
    """The :class:`~daybreak_server.ports.sessions.SessionWatch`."""

    def __init__(self, store: SessionStore, session: SessionId, tenant: str) -> None:
        self._store = store
        self._session = session
        self._tenant = tenant
        self._woken = asyncio.Event()

    def put(self, event: SessionEvent | None) -> None:
        """Wake the caller for the event ``ended`` and for ``None`` (the model progressed, or events may be missing)."""
        if event is None or event.type is SessionEventType.ENDED:
            self._woken.set()

    async def read(self) -> SessionRecord:
        """The session as it is now. See the port."""
        self._woken.clear()  # first, so that an announcement that comes at once is not lost
        return await self._store.announce_progress(self._session, tenant=self._tenant)

    async def progress(self, *, within_s: float = math.inf) -> None:
        """Wait for the model. See the port."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(within_s, _LOOK_S)):
                await self._woken.wait()


class RedisSessionEvents:
    """The :class:`~daybreak_server.ports.sessions.SessionEvents`. ``store`` reads histories."""

    def __init__(
        self, where: str | Endpoint, store: SessionStore, *, prefix: str = "daybreak", timeout_s: float = 5.0
    ) -> None:
        self._where = where
        self._store = store
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._readers: dict[str, _PoolReader] = {}

    async def close(self) -> None:
        """End all readers."""
        await asyncio.gather(*(reader.stop() for reader in self._readers.values()))
        self._readers.clear()

    async def follow_session(self, session: SessionId, *, after: str = "0-0") -> AsyncIterator[SessionEvent]:
        """The events that follow ``after``, in order, as they arrive. Stops after the event ``ended``.

        Survives outages of the store.
        """
        pool = pool_of(session)
        if pool is None:
            raise calls.unknown(session)
        reader, follower = self._reader(pool), _Follower()
        event: SessionEvent | None = None
        try:
            await reader.add(session, follower)
            while True:
                try:
                    news = [event] if event is not None else await self._history(session, after)
                except StoreUnavailableError:
                    await asyncio.sleep(_BACKOFF_S[-1])
                    continue
                for found in news:
                    if _order(found.id) > _order(after):
                        after = found.id
                        yield found
                        if found.type is SessionEventType.ENDED:
                            return
                event = None if len(news) == _COUNT else await follower.queue.get()
        finally:
            await self._remove(pool, session, follower)

    @asynccontextmanager
    async def watch_session(self, session: SessionId, *, tenant: str) -> AsyncIterator[SessionWatch]:
        """Watch a session. See the port."""
        pool = pool_of(session)
        if pool is None:
            raise calls.unknown(session)
        watch = _Watch(self._store, session, tenant)
        try:
            await self._reader(pool).add(session, watch)
            yield watch
        finally:
            await self._remove(pool, session, watch)

    async def _remove(self, pool: str, session: SessionId, follower: _Follower | _Watch) -> None:
        reader = self._readers.get(pool)
        if reader is not None and reader.remove(session, follower):
            del self._readers[pool]
            await reader.stop()

    async def _history(self, session: SessionId, after: str) -> Sequence[SessionEvent]:
        return await self._store.session_events(session, after=after, limit=_COUNT)

    def _reader(self, pool: str) -> _PoolReader:
        if pool not in self._readers:
            key = Keys(prefix=self._prefix, pool=pool).single("session_events")
            self._readers[pool] = _PoolReader(self._where, key, timeout_s=self._timeout_s)
        return self._readers[pool]


class _PoolReader:
    """Reads one pool's stream while anyone follows or watches one of its sessions."""

    def __init__(self, where: str | Endpoint, key: str, *, timeout_s: float) -> None:
        self._client = connect_async(where, timeout_s=BLOCK_S + timeout_s)
        self._key = key
        self._followers: dict[SessionId, set[_Follower | _Watch]] = {}
        self._task: asyncio.Task[None] | None = None
        self._reading = asyncio.Event()

    async def add(self, session: SessionId, follower: _Follower | _Watch) -> None:
        """Pass the session's events to ``follower`` from now on. Returns once the follower cannot miss an
        event."""
        self._followers.setdefault(session, set()).add(follower)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        await self._reading.wait()

    def remove(self, session: SessionId, follower: _Follower | _Watch) -> bool:
        """Stop passing events to ``follower``. Returns whether no session has a follower now."""
        followers = self._followers.get(session, set())
        followers.discard(follower)
        if not followers:
            self._followers.pop(session, None)
        return not self._followers

    async def stop(self) -> None:
        """End the task and close the connection."""
        while self._task is not None and not self._task.done():
            self._task.cancel()  # on Python 3.11, redis-py may swallow a cancel while it sends a command
            await asyncio.wait([self._task], timeout=0.1)
        await self._client.aclose()

    async def _run(self) -> None:
        failures, after = 0, ""
        while True:
            try:
                with translated():
                    after = after or await self._newest()
                    self._reading.set()
                    if failures:
                        self._tell_all()
                    failures = 0
                    while True:
                        after = await self._pass_on(after)
            except StoreUnavailableError as exc:
                if failures == 0:
                    log.warning("the stream %s was interrupted; reconnecting: %s", self._key, exc)
                self._reading.set()  # a new follower reads the history, and sees the error there
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1

    async def _newest(self) -> str:
        newest: Any = await self._client.xrevrange(self._key, count=1)
        return text(newest[0][0]) if newest else "0-0"

    async def _pass_on(self, after: str) -> str:
        reply: Any = await self._client.xread({self._key: after}, count=_COUNT, block=round(BLOCK_S * 1000))
        entries = reply[0][1] if reply else []
        # A full page means that the reader is behind, so entries that it has not read may have been trimmed.
        if len(entries) == _COUNT:
            self._tell_all()
            return await self._newest()
        for entry, fields in entries:
            if consumed := fields.get(b"consumed"):
                self._wake(SessionId(text(consumed)))
                continue
            followers = self._followers.get(SessionId(text(fields[b"session"])))
            if followers:
                event = codec.event(entry, fields)
                for follower in followers:
                    follower.put(event)
        return text(entries[-1][0]) if entries else after

    def _wake(self, session: SessionId) -> None:
        for follower in self._followers.get(session, ()):
            if isinstance(follower, _Watch):
                follower.put(None)

    def _tell_all(self) -> None:
        for followers in self._followers.values():
            for follower in followers:
                follower.put(None)


def _order(event_id: str) -> tuple[int, int]:
    ms, _, seq = event_id.partition("-")
    return int(ms), int(seq or 0)
