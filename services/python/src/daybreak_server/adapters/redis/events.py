"""Reads the event streams of the pools, with asynchronous methods."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.arguments import EventsPage
from daybreak_server.adapters.redis.client import AsyncScripts, connect_async, translated
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Call, Library
from daybreak_server.domain.ids import TaskId, pool_of
from daybreak_server.domain.tasks import EventRecord
from daybreak_server.ports.events import EventPage
from daybreak_server.ports.store_errors import EventsTrimmedError, StoreUnavailableError

log = logging.getLogger(__name__)

BLOCK_S = 5.0
"""How long one blocking read waits. A dead connection is noticed after at most this time plus the timeout."""
_BACKOFF_S = (0.1, 0.25, 0.5, 1.0, 2.0)


def _order(event_id: str) -> tuple[int, int]:
    ms, _, seq = event_id.partition("-")
    return int(ms), int(seq or 0)


class RedisEvents:
    """The :class:`~daybreak_server.ports.events.EventLog` on Redis. Each ``follow`` has its own connection."""

    def __init__(
        self,
        where: str | Endpoint,
        *,
        prefix: str = "daybreak",
        timeout_s: float = 5.0,
        library: Library | None = None,
    ) -> None:
        self._where = where
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._client = connect_async(where, timeout_s=timeout_s)
        self._scripts = AsyncScripts(self._client, library or Library())

    async def close(self) -> None:
        """Close the connections. An iterator of ``follow`` closes its own connection when the iterator is closed."""
        await self._scripts.close()
        await self._client.aclose()

    async def read(self, task: TaskId, *, after: str | None = None, limit: int = 1000) -> EventPage:
        """A task's events after the id ``after``. ``trimmed`` may be set although the reader has missed nothing."""
        pool = pool_of(task)
        if pool is None:
            return EventPage(events=())
        keys = Keys(prefix=self._prefix, pool=pool)
        trimmed, entries = await self._scripts.call(
            Call("events", keys, EventsPage(task=task, after=after or "", limit=limit)), idempotent=True
        )
        events = tuple(codec.own_event(entry, task) for entry in entries)
        return EventPage(events=events, trimmed=bool(trimmed))

    async def tail(self, pool: str) -> str:
        """The id of the pool's newest event (``0-0`` when there is none)."""
        key = Keys(prefix=self._prefix, pool=pool).single("events")
        newest = await self._scripts.perform(lambda: self._client.xrevrange(key, count=1), idempotent=True)
        return codec.text(newest[0][0]) if newest else "0-0"

    async def follow(self, pool: str, *, after: str) -> AsyncIterator[Sequence[EventRecord]]:
        """All events of the pool after the id ``after``, as they arrive. Reconnects after outages.

        :raises EventsTrimmedError: when events that were not read yet have been trimmed.
        """
        key = Keys(prefix=self._prefix, pool=pool).single("events")
        failures = 0
        client = connect_async(self._where, timeout_s=BLOCK_S + self._timeout_s)
        try:
            while True:
                try:
                    with translated():
                        await self._check(client, key, after)
                        while True:
                            entries = await self._block(client, key, after)
                            failures = 0
                            if entries:
                                after = codec.text(entries[-1][0])
                                yield [codec.event(entry, fields) for entry, fields in entries]
                except StoreUnavailableError as exc:
                    if failures == 0:
                        log.warning(
                            "the event stream of pool %s was interrupted; reconnecting: %s", pool, exc
                        )
                    await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                    failures += 1
        finally:
            await client.aclose()

    async def _block(self, client: Any, key: str, after: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        reply = await client.xread({key: after}, count=1000, block=round(BLOCK_S * 1000))
        return cast("list[tuple[bytes, dict[bytes, bytes]]]", reply[0][1]) if reply else []

    async def _check(self, client: Any, key: str, after: str) -> None:
        """Check that the stream, which keeps about a million events, still has all events after the id ``after``."""
        if not await client.exists(key):
            return
        info = await client.xinfo_stream(key)
        first = info["first-entry"]
        if info["entries-added"] > info["length"] and first and _order(after) < _order(codec.text(first[0])):
            raise EventsTrimmedError(f"events that follow {after} have been trimmed; begin again at the tail")
