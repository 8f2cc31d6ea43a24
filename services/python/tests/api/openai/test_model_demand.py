"""What a gateway publishes about the demand for models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from daybreak_server.api.routing.model_demand import ModelDemand
from daybreak_server.ports.store_errors import StoreUnavailableError


class Published:
    """Records what is published."""

    def __init__(self) -> None:
        self.calls: list[dict[str, int]] = []
        self.broken = False
        self._changed = asyncio.Event()

    async def publish_demand(self, gateway: str, requests: Mapping[str, int], *, ttl_s: float) -> None:
        self._changed.set()
        if self.broken:
            raise StoreUnavailableError("it is away")
        self.calls.append(dict(requests))

    async def next(self) -> None:
        await self._changed.wait()
        self._changed.clear()


@asynccontextmanager
async def running(demand: ModelDemand) -> AsyncIterator[None]:
    task = asyncio.create_task(demand.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_change_of_the_replicas_wanted_is_published_at_once_and_withdrawn_at_the_end() -> None:
    store, requests = Published(), {"a": 0, "b": 0}
    demand = ModelDemand(store, gateway="g")  # type: ignore[arg-type]
    demand.follow("a", lambda: requests["a"], lambda: 4.0)
    demand.follow("b", lambda: requests["b"], lambda: 4.0)
    async with running(demand):
        requests["a"] = 1
        demand.changed("a")
        await store.next()
        assert store.calls == [{"a": 1}]
        requests["a"] = 4  # one replica is still enough
        demand.changed("a")
        requests["b"] = 5
        demand.changed("b")
        await store.next()
        assert store.calls[1] == {"a": 4, "b": 5}
    assert store.calls[-1] == {}


async def test_a_request_that_ends_before_it_is_published_counts() -> None:
    store, requests = Published(), {"a": 1}
    demand = ModelDemand(store, gateway="g")  # type: ignore[arg-type]
    demand.follow("a", lambda: requests["a"], lambda: 8.0)
    demand.changed("a")
    requests["a"] = 0
    demand.changed("a")
    async with running(demand):
        await store.next()
        assert store.calls == [{"a": 1}]
        await store.next()
        assert store.calls == [{"a": 1}, {}]


async def test_a_request_that_a_fallback_answers_asks_for_the_model_itself() -> None:
    store = Published()
    demand = ModelDemand(store, gateway="g")  # type: ignore[arg-type]
    demand.follow("big", lambda: 0, lambda: 8.0)
    async with running(demand):
        with demand.answered_elsewhere("big"):
            await store.next()
            assert store.calls == [{"big": 1}]
        with demand.answered_elsewhere("unknown"):
            pass


async def test_the_demand_is_published_after_an_outage() -> None:
    store = Published()
    store.broken = True
    demand = ModelDemand(store, gateway="g")  # type: ignore[arg-type]
    demand.follow("a", lambda: 3, lambda: 8.0)
    async with running(demand):
        demand.changed("a")
        await store.next()
        store.broken = False
        await store.next()
        assert store.calls == [{"a": 3}]
