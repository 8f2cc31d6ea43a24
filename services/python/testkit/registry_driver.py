"""Runs the registry of workers and models on a real server, with a clock that tests set, and builds its records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import redis

from daybreak_server.adapters.redis.client import connect
from daybreak_server.adapters.redis.registry.keys import FAMILIES, SINGLE, RegistryKeys
from daybreak_server.adapters.redis.registry.library import RegistryLibrary
from daybreak_server.adapters.redis.registry.store import RedisRegistry
from daybreak_server.domain.models import ModelRecord, ReplicaReport, ReplicaState, WorkerRecord
from daybreak_server.domain.placement import HOST, Placement, Replica
from daybreak_server.ports.registry import PlacementPlan, RegistryView
from testkit.waiting import wait_until_async

CLOCK_KEY = "clock:test"
TEST_CLOCK = f"local function now_ms() return tonumber(redis.call('GET', P .. '{CLOCK_KEY}')) end\n"
START_MS = 1_800_000_000_000


class RegistryDriver:
    """The registry, and a plain client to look at its keys. ``now`` is in ms and only changes when the test sets it."""

    def __init__(self, url: str, *, timeout_s: float = 30) -> None:
        self.keys = RegistryKeys(prefix="daybreak")
        self.client: redis.Redis = connect(url, timeout_s=30)
        self.registry = RedisRegistry(
            url, timeout_s=timeout_s, library=RegistryLibrary(clock_text=TEST_CLOCK)
        )
        self.now = START_MS

    @property
    def now(self) -> int:
        return self._now

    @now.setter
    def now(self, value: int) -> None:
        self._now = value
        self.client.set(self.keys.base + CLOCK_KEY, value)

    async def pass_time(self, ms: int) -> RegistryView:
        """Advance the clock in steps of at most 1 s, with a tick after each, so that the lease clock keeps up."""
        view = await self.registry.tick()
        while ms > 0:
            step = min(ms, 1000)
            ms -= step
            self.now += step
            view = await self.registry.tick()
        return view

    async def workers(self) -> list[str]:
        """The ids of the workers in the view."""
        return [worker.id for worker in (await self.registry.view()).workers]

    async def version(self) -> int:
        return (await self.registry.view()).version

    async def wait_blocked(self, clients: int = 1) -> None:
        """Wait until this many clients are inside a blocking call."""

        async def blocked() -> bool:
            info: Any = await asyncio.to_thread(self.client.info, "clients")
            return int(info["blocked_clients"]) >= clients

        await wait_until_async(blocked, 60, f"{clients} blocked clients")

    async def close(self) -> None:
        await self.registry.close()
        self.client.close()


def model(alias: str = "chat", **fields: Any) -> ModelRecord:
    """A model of 10 GB for the engine ``e``."""
    return ModelRecord(alias=alias, source="s", engine="e", **{"memory_bytes": 10 * 10**9, **fields})


def report(alias: str = "chat", state: ReplicaState = ReplicaState.READY, **fields: Any) -> ReplicaReport:
    """What a worker says about a replica."""
    return ReplicaReport(alias=alias, state=state, **fields)


def worker(
    id: str = "w1",
    *,
    url: str = "",
    replicas: Iterable[ReplicaReport] = (),
    devices: Mapping[int, int] | None = None,
    **fields: Any,
) -> WorkerRecord:
    """A worker that has 80 GB and the engine ``e``."""
    return WorkerRecord(
        id=id,
        url=url or f"http://{id}:7000",
        engines=fields.pop("engines", frozenset({"e"})),
        devices={HOST: 80 * 10**9} if devices is None else devices,
        replicas=tuple(replicas),
        **fields,
    )


def plan_with(*placed: tuple[str, str], workers_wanted: int = 0) -> PlacementPlan:
    """A plan with one replica for each pair (model, worker)."""
    replicas = tuple(Replica(alias=alias, worker=on, devices=(HOST,)) for alias, on in sorted(placed))
    return PlacementPlan(placement=Placement(replicas=replicas), workers_wanted=workers_wanted)


def check_registry_keys(client: redis.Redis, keys: RegistryKeys, names: list[str]) -> None:
    """Assert that every key is known, has the documented type and no TTL, and that no key is orphaned."""
    found = {name: keys.parse(name) for name in names if not name.endswith(CLOCK_KEY)}
    unknown = [name for name, parts in found.items() if parts is None]
    assert not unknown, f"keys of no known kind: {unknown}"
    for name, parts in found.items():
        assert parts is not None
        documented = SINGLE[parts[0]] if parts[0] in SINGLE else FAMILIES[parts[0]].key
        stored: Any = client.type(name)
        assert stored.decode() == documented.type, f"{name} is a {stored.decode()}"
        assert client.ttl(name) == -1, f"{name} has a TTL"
    records = {parts[1] for parts in found.values() if parts is not None and parts[0] == "worker"}
    leases: Any = client.zrange(keys.single("workers"), 0, -1)
    assert {member.decode() for member in leases} == records, "records and leases of workers differ"
    wanted: Any = client.zrange(keys.single("wanted"), 0, -1)
    numbers = {int(member) for member in wanted}
    assert numbers == set(range(1, len(numbers) + 1)), "the members of `wanted` are not 1 to n"
