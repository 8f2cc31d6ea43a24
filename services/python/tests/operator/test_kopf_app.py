"""The loops of the shell. That kopf hears what it should is shown on a cluster, not here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from operator_fakes import Faces
from operator_world import POOL, UID, World
from prometheus_client import CollectorRegistry

from daybreak_server.adapters.kube.cache import Cache
from daybreak_server.operator.controller import kopf_app
from daybreak_server.operator.controller.metrics import OperatorMetrics
from daybreak_server.operator.controller.reconciler import Reconciler
from testkit.waiting import wait_until_async


def body(world: World) -> dict[str, Any]:
    """The pool's object."""
    return {
        "metadata": {"name": POOL, "namespace": "default", "uid": UID, "generation": 1},
        "spec": world.spec().model_dump(by_alias=True, exclude_none=True, mode="json"),
        "status": world.status,
    }


async def test_what_is_heard_is_looked_at_once_and_a_pool_that_goes_takes_its_loop_along() -> None:
    """Many bells in one breath are one look; nothing is left behind."""
    world, cache = World(), Cache()
    faces = Faces(world)

    async def fresh(name: str) -> dict[str, Any]:
        return body(world)

    loops = kopf_app.Loops(
        Reconciler(faces, faces, faces, fresh, OperatorMetrics(CollectorRegistry())), cache
    )
    loops.ring("unknown")
    assert loops.alive() == {"pools": 0}
    cache.pool(body(world), gone=False)
    loops.ring(POOL)

    async def made() -> bool:
        return bool(world.clusters)

    await wait_until_async(made, 5, "the RayCluster")
    world.replicas = 2
    cache.pool(body(world), gone=False)
    for _ in range(100):
        loops.ring(POOL)

    async def grown() -> bool:
        return any(one["spec"]["workerGroupSpecs"][0]["replicas"] == 2 for one in world.clusters.values())

    await wait_until_async(grown, 5, "two groups wanted")
    assert loops.alive() == {"pools": 1}
    cache.pool(body(world), gone=True)
    await loops.end(POOL)
    assert loops.alive() == {"pools": 0}
    await loops.close()


async def test_an_error_of_ours_does_not_end_a_loop_and_one_that_ended_is_told() -> None:
    """The first is logged and tried again; the second fails the liveness probe."""
    world, cache = World(), Cache()
    cache.pool(body(world), gone=False)

    class Broken:
        async def step(self, name: str, heard: Any) -> float:
            raise ZeroDivisionError

        def forget(self, name: str) -> None: ...

    loops = kopf_app.Loops(Broken(), cache)  # type: ignore[arg-type]
    loops.ring(POOL)
    await asyncio.sleep(0.05)
    assert loops.alive() == {"pools": 1}
    loops._tasks[POOL].cancel()

    async def ended() -> bool:
        return loops._tasks[POOL].done()

    await wait_until_async(ended, 5, "the loop to end")
    with pytest.raises(RuntimeError, match="ended"):
        loops.alive()
    await loops.close()


async def test_a_pool_whose_end_was_not_heard_takes_its_loop_along() -> None:
    """Lists say that it is gone where a watch did not."""
    world, cache = World(), Cache()
    faces = Faces(world)

    async def fresh(name: str) -> dict[str, Any]:
        return body(world)

    cache.pool(body(world), gone=False)
    loops = kopf_app.Loops(
        Reconciler(faces, faces, faces, fresh, OperatorMetrics(CollectorRegistry())), cache
    )
    loops.ring(POOL)

    async def told() -> bool:
        return world.told is not None

    await wait_until_async(told, 5, "a look")
    cache.pools.clear()
    loops._bells[POOL].set()

    async def over() -> bool:
        return loops.alive() == {"pools": 0}

    await wait_until_async(over, 5, "the loop to end")


def test_kopf_takes_all_handlers() -> None:
    """Login, two more activities, a probe, and four kinds of objects."""
    handlers = kopf_app.registry(Cache(), lambda: pytest.fail("nothing starts yet"))
    assert len(handlers._activities._handlers) == 4
    assert len(handlers._watching._handlers) == 4
