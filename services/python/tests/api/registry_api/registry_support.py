"""A gateway for tests. Each test registers the workers and models, and decides which worker runs what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
from api_support import Api

from daybreak_server.adapters.redis.registry.store import RedisRegistry
from daybreak_server.domain.placement import Placement, Replica
from daybreak_server.ports.registry import PlacementPlan, RegistryView
from testkit.waiting import wait_until

REMOTE = {"X-Forwarded-For": "203.0.113.9"}
"""A header that makes a request look as if it came from a client on another machine."""


def bearer(token: str) -> dict[str, Any]:
    """The headers of a request that a client on another machine sends with a token."""
    return {**REMOTE, "Authorization": f"Bearer {token}".encode()}


def registration(worker: str = "w1", **changes: Any) -> dict[str, Any]:
    """The body with which a worker registers."""
    return {
        "id": worker,
        "incarnation": "a",
        "url": "http://127.0.0.1:7000",
        "version": "1",
        "engines": ["test"],
        "gpus": [{"index": 0, "name": "H100", "memory_bytes": 80, "memory_free_bytes": 79}],
        "memory_bytes": 100,
        "memory_free_bytes": 90,
        **changes,
    }


def heartbeat(*models: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The body of a heartbeat."""
    body = {
        name: registration()[name] for name in ("incarnation", "gpus", "memory_bytes", "memory_free_bytes")
    }
    return {**body, "draining": False, "models": list(models), **changes}


class PlannedGateway:
    """A gateway for which the test, not the manager, decides which worker runs which model."""

    def __init__(self, api: Api, redis_url: str) -> None:
        self.api, self.client = api, api.client
        self._redis_url = redis_url

    def add_model(
        self, alias: str = "small", *, status: int = 201, headers: Any = None, **fields: Any
    ) -> Any:
        body = {"alias": alias, "source": f"org/{alias}", "engine": "test", **fields}
        response = self.client.post("/v1/models/register", json=body, headers=headers)
        assert response.status_code == status, response.text
        return response.json()

    def add_worker(self, worker: str = "w1", *, status: int = 201, headers: Any = None, **fields: Any) -> Any:
        response = self.client.post("/v1/workers", json=registration(worker, **fields), headers=headers)
        assert response.status_code == status, response.text
        return response.json()

    def beat(self, *models: dict[str, Any], worker: str = "w1", **fields: Any) -> httpx2.Response:
        return self.client.put(f"/v1/workers/{worker}", json=heartbeat(*models, **fields))

    def model(self, alias: str = "small", **headers: str) -> dict[str, Any]:
        response = self.client.get(f"/v1/models/{alias}", headers=headers)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait_for(self, state: str, alias: str = "small") -> dict[str, Any]:
        wait_until(lambda: self.model(alias)["state"] == state, 30, f"{alias} is {state}")
        return self.model(alias)

    def plan(self, *replicas: tuple[str, str], unplaced: Any = None, **plan: Any) -> None:
        """Publish a plan with these replicas, each given as the alias of a model and the id of a worker."""
        placed = tuple(Replica(alias=alias, worker=worker, devices=(0,)) for alias, worker in replicas)
        placement = Placement(replicas=placed, unplaced=unplaced or {})

        async def publish(registry: RedisRegistry) -> None:
            assert await registry.hold_placement("test", priority=9, ttl_s=300)
            assert await registry.publish_plan("test", PlacementPlan(placement=placement, **plan))

        self._with_registry(publish)

    def view(self) -> RegistryView:
        return self._with_registry(lambda registry: registry.view())

    def _with_registry(self, call: Callable[[RedisRegistry], Coroutine[Any, Any, Any]]) -> Any:
        async def run() -> Any:
            registry = RedisRegistry(self._redis_url)
            try:
                return await call(registry)
            finally:
                await registry.close()

        return asyncio.run(run())
