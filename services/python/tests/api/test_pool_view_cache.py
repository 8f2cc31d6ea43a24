"""Several parts of a gateway share a cache of the latest view of each pool."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from daybreak_server.api.intake.catalog import PoolViewCache
from daybreak_server.domain.pools import PoolView
from daybreak_server.ports.tasks import TaskStore


class Store:
    """A store that answers each read when the test sets the result of the read."""

    def __init__(self) -> None:
        self.reads: list[asyncio.Future[PoolView]] = []

    async def pool(self, _name: str) -> PoolView:
        self.reads.append(asyncio.get_running_loop().create_future())
        return await self.reads[-1]


async def test_an_older_view_that_arrives_late_does_not_replace_a_newer_one():
    """The router assumes that a group which is missing from a view has lost its lease."""
    store = Store()
    cache = PoolViewCache(cast("TaskStore", store), lambda: 0)
    seen: list[Any] = []
    cache.subscribe("answers", seen.append)
    older, newer = (asyncio.create_task(cache.refresh("answers")) for _ in range(2))
    while len(store.reads) < 2:
        await asyncio.sleep(0)
    views = [PoolView(name="answers", queued=number) for number in range(2)]
    store.reads[1].set_result(views[1])
    assert await newer == views[1]
    store.reads[0].set_result(views[0])
    assert await older == views[0]
    assert seen == [views[1]]
    assert cache.latest("answers") == views[1]
