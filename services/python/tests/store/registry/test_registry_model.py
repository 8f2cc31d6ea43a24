"""The registry on a real server behaves like the registry in memory, whatever calls arrive in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from daybreak_server.domain.models import ReplicaState
from daybreak_server.ports.registry import Registry, UnknownWorkerError, WorkerTakenError
from testkit.memory_registry import MemoryRegistry
from testkit.registry_driver import RegistryDriver, model, plan_with, report, worker
from testkit.store_driver import check_keys
from testkit.valkey import Server

ALIASES = st.sampled_from(["m", "n"])
IDS = st.sampled_from(["a", "b"])
INCARNATIONS = st.sampled_from(["i", "j"])
URLS = st.sampled_from(["http://here:1", "http://there:1"])
HOLDERS = st.sampled_from(["x", "y"])
REPLICAS = st.lists(
    st.builds(report, ALIASES, st.sampled_from(ReplicaState), requests=st.integers(0, 2)), max_size=2
)


class Machine(RuleBasedStateMachine):
    """Drives both registries side by side."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        with self.server.client() as client:
            client.flushall()
        self.loop = asyncio.Runner()
        self.driver = RegistryDriver(self.server.url)
        self.memory = MemoryRegistry(now_ms=lambda: self.driver.now)

    def both(self, act: Callable[[Registry], Awaitable[Any]]) -> None:
        """Make the same call to both registries, and check that the answers or errors are equal."""
        assert self.loop.run(_outcome(self.driver.registry, act)) == self.loop.run(_outcome(self.memory, act))

    @rule(alias=ALIASES, replicas=st.integers(1, 2))
    def add_model(self, alias: str, replicas: int) -> None:
        self.both(lambda registry: registry.add_model(model(alias, replicas=replicas)))

    @rule(alias=ALIASES)
    def mark_deleted(self, alias: str) -> None:
        self.both(lambda registry: registry.mark_deleted(alias))

    @rule(alias=ALIASES)
    def remove_model(self, alias: str) -> None:
        self.both(lambda registry: registry.remove_model(alias))

    @rule(id=IDS, incarnation=INCARNATIONS, url=URLS, replicas=REPLICAS)
    def add_worker(self, id: str, incarnation: str, url: str, replicas: list[Any]) -> None:
        record = worker(id, url=url, replicas=replicas)
        self.both(lambda registry: registry.add_worker(record, incarnation=incarnation, lease_s=5))

    @rule(id=IDS, incarnation=INCARNATIONS, replicas=REPLICAS, draining=st.booleans())
    def renew_worker(self, id: str, incarnation: str, replicas: list[Any], draining: bool) -> None:
        record = worker(id, url="http://claimed:1", replicas=replicas, draining=draining)
        self.both(lambda registry: registry.renew_worker(record, incarnation=incarnation, lease_s=5))

    @rule(id=IDS, incarnation=INCARNATIONS)
    def remove_worker(self, id: str, incarnation: str) -> None:
        self.both(lambda registry: registry.remove_worker(id, incarnation=incarnation))

    @rule(
        gateway=st.sampled_from(["g", "h"]),
        requests=st.dictionaries(ALIASES, st.integers(0, 3)),
        ttl_s=st.sampled_from([2, 5]),
    )
    def publish_demand(self, gateway: str, requests: dict[str, int], ttl_s: int) -> None:
        self.both(lambda registry: registry.publish_demand(gateway, requests, ttl_s=ttl_s))

    @rule(holder=HOLDERS, priority=st.integers(0, 1))
    def hold_placement(self, holder: str, priority: int) -> None:
        self.both(lambda registry: registry.hold_placement(holder, priority=priority, ttl_s=5))

    @rule(holder=HOLDERS, placed=st.sets(st.tuples(ALIASES, IDS)), workers_wanted=st.integers(0, 2))
    def publish_plan(self, holder: str, placed: set[tuple[str, str]], workers_wanted: int) -> None:
        plan = plan_with(*placed, workers_wanted=workers_wanted)
        self.both(lambda registry: registry.publish_plan(holder, plan))

    @rule(holder=HOLDERS)
    def release_placement(self, holder: str) -> None:
        self.both(lambda registry: registry.release_placement(holder))

    @rule(ms=st.sampled_from([1, 1000, 3000, 3_600_000, -3_600_000]))
    def advance(self, ms: int) -> None:
        """Move the wall clock without a tick, sometimes by an hour forwards or backwards."""
        self.driver.now += ms

    @rule()
    def tick(self) -> None:
        self.both(lambda registry: registry.tick())

    @rule(seconds=st.sampled_from([1, 2, 5]))
    def time_passes(self, seconds: int) -> None:
        """Let seconds pass with a tick in each, so that leases end."""
        for _ in range(seconds):
            self.advance(1000)
            self.tick()

    @invariant()
    def same(self) -> None:
        self.both(lambda registry: registry.view())

    def teardown(self) -> None:
        try:
            check_keys(self.driver.client)
        finally:
            self.loop.run(self.driver.close())
            self.loop.close()


async def _outcome(registry: Registry, act: Callable[[Registry], Awaitable[Any]]) -> Any:
    try:
        return await act(registry)
    except (UnknownWorkerError, WorkerTakenError) as exc:
        return type(exc), str(exc)


def test_the_registry_does_what_the_one_in_memory_does(server: Server) -> None:
    kind = type("RegistryMachine", (Machine,), {"server": server})
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=max(1, settings().max_examples // 5),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
