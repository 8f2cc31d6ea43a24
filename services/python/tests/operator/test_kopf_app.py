"""Tests of the reconcile loops. Other tests, on a cluster, show that kopf receives the watch events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from operator_fakes import FakePorts
from operator_world import POOL, UID, World

from daybreak_server.adapters.kube.cache import Cache
from daybreak_server.operator.controller import kopf_app
from daybreak_server.operator.controller.metrics import OperatorMetrics
from daybreak_server.operator.controller.reconciler import Reconciler
from daybreak_server.ports.metrics import NoMeter
from testkit.waiting import wait_until_async


def body(world: World) -> dict[str, Any]:
    """The pool's object."""
    return {
        "metadata": {"name": POOL, "namespace": "default", "uid": UID, "generation": 1},
        "spec": world.spec().model_dump(by_alias=True, exclude_none=True, mode="json"),
        "status": world.status,
    }


class NeverDue(Reconciler):
    """Its next step is due in an hour, so a step in these tests shows that something has woken the loop."""

    async def step(self, name: str, manifest: Any) -> float:
        await super().step(name, manifest)
        return 3600.0


def remembered(loops: kopf_app.Loops, reconciler: Reconciler) -> dict[str, Any]:
    """Everything that the operator remembers of pools, by table."""
    tables = {name: getattr(loops, name) for name in ("_tasks", "_dirty", "_stepping_since")}
    tables |= {name: getattr(reconciler, name) for name in ("_written", "_failures", "_refused", "_silent")}
    return {name: table for name, table in tables.items() if table}


async def test_a_burst_of_events_is_one_step_and_a_deleted_pool_ends_its_loop() -> None:
    """After the deletion, the operator remembers nothing about the pool."""
    world, cache = World(), Cache()
    ports = FakePorts(world)

    async def read_pool(name: str) -> dict[str, Any]:
        return body(world)

    reconciler = NeverDue(ports, ports, ports, read_pool, OperatorMetrics(NoMeter()))
    loops = kopf_app.Loops(reconciler, cache)
    loops.enqueue("unknown")
    assert loops.liveness() == {"pools": 0}
    cache.pool(body(world), gone=False)
    loops.enqueue(POOL)

    async def created() -> bool:
        return bool(world.clusters)

    await wait_until_async(created, 60, "the RayCluster")
    world.replicas = 2
    cache.pool(body(world), gone=False)
    for _ in range(100):
        loops.enqueue(POOL)

    async def scaled_up() -> bool:
        return any(
            cluster["spec"]["workerGroupSpecs"][0]["replicas"] == 2 for cluster in world.clusters.values()
        )

    await wait_until_async(scaled_up, 60, "two groups wanted")
    assert loops.liveness() == {"pools": 1}
    assert {"_tasks", "_dirty", "_written"} <= set(remembered(loops, reconciler))
    cache.pool(body(world), gone=True)
    await loops.end(POOL)
    assert loops.liveness() == {"pools": 0}
    assert not remembered(loops, reconciler)
    await loops.close()


async def test_an_unexpected_error_ends_no_loop_and_an_ended_loop_fails_the_liveness_probe() -> None:
    """The loop logs the error and retries the step."""
    world, cache = World(), Cache()
    cache.pool(body(world), gone=False)

    stepped = asyncio.Event()

    class Broken:
        metrics = OperatorMetrics(NoMeter())

        async def step(self, name: str, manifest: Any) -> float:
            stepped.set()
            raise ZeroDivisionError

        def forget(self, name: str) -> None: ...

    loops = kopf_app.Loops(Broken(), cache)  # type: ignore[arg-type]
    loops.enqueue(POOL)
    await asyncio.wait_for(stepped.wait(), 60)
    assert loops.liveness() == {"pools": 1}
    loops._tasks[POOL].cancel()

    async def ended() -> bool:
        return loops._tasks[POOL].done()

    await wait_until_async(ended, 60, "the loop to end")
    with pytest.raises(RuntimeError, match="ended"):
        loops.liveness()
    await loops.close()


async def test_a_pool_whose_deletion_the_watch_missed_ends_its_loop() -> None:
    """A later list of all pools does not have the pool."""
    world, cache = World(), Cache()
    ports = FakePorts(world)

    async def read_pool(name: str) -> dict[str, Any]:
        return body(world)

    cache.pool(body(world), gone=False)
    reconciler = NeverDue(ports, ports, ports, read_pool, OperatorMetrics(NoMeter()))
    loops = kopf_app.Loops(reconciler, cache)
    loops.enqueue(POOL)

    async def reported() -> bool:
        return world.report is not None

    await wait_until_async(reported, 60, "a report")
    cache.pools.clear()
    loops._dirty[POOL].set()

    async def loop_ended() -> bool:
        return loops.liveness() == {"pools": 0}

    await wait_until_async(loop_ended, 60, "the loop to end")
    assert not remembered(loops, reconciler)


def test_kopf_accepts_all_handlers() -> None:
    """There are four activities (login, startup, cleanup, probe) and watches of four kinds of objects."""
    handlers = kopf_app.registry(Cache(), lambda: pytest.fail("nothing starts yet"))
    assert len(handlers._activities._handlers) == 4
    assert len(handlers._watching._handlers) == 4
