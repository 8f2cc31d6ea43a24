"""The registry of workers and models on Redis ≥ 7 or Valkey. Use an instance in one event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import redis.asyncio

from daybreak_server.adapters.redis.client import AsyncScripts, OnCall, connect_async, translated
from daybreak_server.adapters.redis.codec import text
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.registry import codec
from daybreak_server.adapters.redis.registry.keys import RegistryKeys
from daybreak_server.adapters.redis.registry.library import NAME, RegistryLibrary
from daybreak_server.adapters.redis.scripts import Arg, Call
from daybreak_server.domain.models import ModelRecord, WorkerRecord
from daybreak_server.domain.placement import Replica
from daybreak_server.ports.registry import PlacementPlan, RegistryView, UnknownWorkerError, WorkerTakenError
from daybreak_server.ports.store_errors import StoreUnavailableError

_BLOCK_S = 30.0


class RedisRegistry:
    """Implements :class:`daybreak_server.ports.registry.Registry`."""

    def __init__(
        self,
        where: str | Endpoint,
        *,
        prefix: str = "daybreak",
        timeout_s: float = 5.0,
        on_call: OnCall | None = None,
        library: RegistryLibrary | None = None,
    ) -> None:
        self._where = Endpoint.of(where)
        self._timeout_s = timeout_s
        self._client = connect_async(self._where, timeout_s=timeout_s)
        self._scripts = AsyncScripts(self._client, library or RegistryLibrary(), on_call=on_call)
        self._keys = RegistryKeys(prefix=prefix)
        self._waiting: redis.asyncio.Redis | None = None
        """A client for calls that block. Each of these calls has a connection of its own while it waits."""

    async def close(self) -> None:
        """Close the connections."""
        await self._scripts.close()
        await self._client.aclose()
        if self._waiting is not None:
            await self._waiting.aclose()

    async def view(self) -> RegistryView:
        """Everything in the registry. Changes nothing."""
        return codec.view_of(await self._call("view"))

    async def tick(self) -> RegistryView:
        """Advance the lease clock, end the leases that have expired, and return everything."""
        return codec.view_of(await self._call("tick"))

    async def wait(self, *, after: int, timeout_s: float) -> int:
        """Wait until the version is higher than ``after``, for ``timeout_s`` at the most. Returns the version.

        :raises StoreUnavailableError: if Redis cannot be reached or does not answer.
        """
        if self._waiting is None:
            self._waiting = connect_async(self._where, timeout_s=_BLOCK_S + self._timeout_s)
        block_s = min(timeout_s, _BLOCK_S)
        read = self._waiting.xread(
            {self._keys.single("changes"): f"{after}-0"}, block=max(1, round(block_s * 1000))
        )
        try:
            with translated():
                # The connection's timeout is right for the longest wait. A shorter wait needs a shorter timeout.
                reply: Any = await asyncio.wait_for(read, block_s + self._timeout_s)
        except TimeoutError as exc:
            raise StoreUnavailableError("Redis did not answer in time") from exc
        if not reply:
            return after
        return int(text(reply[0][1][-1][0]).partition("-")[0])

    async def add_model(self, model: ModelRecord) -> bool:
        """Register a model. Returns whether its alias was free."""
        return bool(await self._call("add_model", model.alias, codec.model_json(model)))

    async def mark_deleted(self, alias: str) -> ModelRecord | None:
        """Mark a model as deleted. Returns it; ``None`` if there is none."""
        stored = await self._call("mark_deleted", alias)
        return codec.model_of(stored) if stored is not None else None

    async def remove_model(self, alias: str) -> None:
        """Remove a model that is marked as deleted."""
        await self._call("remove_model", alias)

    async def add_worker(self, worker: WorkerRecord, *, incarnation: str, lease_s: float) -> None:
        """Register a worker. :raises WorkerTakenError: if another worker with this id is alive"""
        outcome, where = await self._call(
            "add_worker",
            worker.id,
            incarnation,
            worker.url,
            codec.fixed_json(worker),
            codec.state_json(worker),
            codec.summary_json(worker),
            round(lease_s * 1000),
        )
        _check(worker.id, text(outcome), text(where))

    async def renew_worker(
        self, worker: WorkerRecord, *, incarnation: str, lease_s: float
    ) -> tuple[Replica, ...]:
        """Record a heartbeat. Returns the replicas that the worker should run.

        :raises UnknownWorkerError: if the worker is not registered (any more), so it must register again
        :raises WorkerTakenError: if another incarnation has taken its place
        """
        outcome, found = await self._call(
            "renew_worker",
            worker.id,
            incarnation,
            codec.state_json(worker),
            codec.summary_json(worker),
            round(lease_s * 1000),
        )
        _check(worker.id, text(outcome), text(found))
        plan = codec.plan_of(found)
        return tuple(replica for replica in plan.placement.replicas if replica.worker == worker.id)

    async def remove_worker(self, worker: str, *, incarnation: str) -> bool:
        """Remove a worker that is ending. Returns whether this incarnation was the registered one."""
        return bool(await self._call("remove_worker", worker, incarnation))

    async def publish_demand(self, gateway: str, requests: Mapping[str, int], *, ttl_s: float) -> None:
        """Report how many requests this gateway has, by alias."""
        lines = "".join(f"\n{alias} {number}" for alias, number in sorted(requests.items()) if number > 0)
        await self._call("publish_demand", gateway, lines, round(ttl_s * 1000))

    async def hold_placement(self, holder: str, *, priority: int, ttl_s: float) -> bool:
        """Take or renew the lease ``placement``. Returns whether ``holder`` has it."""
        return bool(await self._call("hold_placement", holder, priority, round(ttl_s * 1000)))

    async def publish_plan(self, holder: str, plan: PlacementPlan) -> bool:
        """Replace the plan if ``holder`` has the lease. Returns whether ``holder`` had the lease."""
        return bool(await self._call("publish_plan", holder, codec.plan_json(plan), plan.workers_wanted))

    async def release_placement(self, holder: str) -> None:
        """End the lease, if ``holder`` has it."""
        await self._call("release_placement", holder)

    async def _call(self, operation: str, *args: Arg) -> Any:
        """Each operation may be repeated without harm, so a call whose reply was lost is sent again."""
        return await self._scripts.call(Call(NAME, self._keys, (operation, *args)), idempotent=True)


def _check(worker: str, outcome: str, where: str) -> None:
    if outcome == "taken":
        raise WorkerTakenError(
            f"A worker {worker} is alive at {where}. Give this one another name with --worker-id, or stop that one."
        )
    if outcome == "unknown":
        raise UnknownWorkerError(f"There is no worker {worker}. Register it.")
