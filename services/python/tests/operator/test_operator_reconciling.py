"""A pool's step: what it remembers, what it does when something fails, and that it can die at every action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from operator_driver import Driver
from operator_faces import Faces
from operator_world import POOL, UID, World
from prometheus_client import CollectorRegistry

from daybreak_server.operator.metrics import Metrics
from daybreak_server.operator.reconciling import Reconciler


class Api:
    """The API server's side of the pool."""

    def __init__(self, world: World) -> None:
        self.world, self.reads = world, 0

    def heard(self, *, status: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The pool's object; with an older status, if wanted."""
        return {
            "metadata": {"name": POOL, "namespace": "default", "uid": UID, "generation": 1},
            "spec": self.world.spec().model_dump(by_alias=True, exclude_none=True, mode="json"),
            "status": dict(self.world.status if status is None else status),
        }

    async def body(self, name: str) -> Mapping[str, Any] | None:
        """From the API server itself."""
        self.reads += 1
        return self.heard()


def reconciler(world: World, api: Api) -> tuple[Any, CollectorRegistry]:
    """One operator's life."""
    faces, counted = Faces(world), CollectorRegistry()
    return Reconciler(faces, faces, faces, api.body, Metrics(counted)), counted


async def test_a_watch_that_shows_an_old_status_is_not_believed() -> None:
    """The status is read once, at first sight; from then on it is what was written."""
    world = World()
    api = Api(world)
    operator, counted = reconciler(world, api)
    await operator.step(POOL, api.heard())
    await operator.step(POOL, api.heard(status={}))
    assert api.reads == 1
    assert counted.get_sample_value(
        "daybreak_operator_actions_total", {"pool": POOL, "action": "WriteStatus"}
    ) == pytest.approx(1)


async def test_an_error_ends_the_look_and_the_pause_grows() -> None:
    """A Kubernetes that cannot be reached is asked less and less often; then all goes on."""
    world = World()
    api = Api(world)
    operator, counted = reconciler(world, api)
    operator.cluster.api_up = False
    pauses = [await operator.step(POOL, api.heard()) for _ in range(8)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 10.0
    failed = {"pool": POOL, "error": "ClusterUnavailableError"}
    assert counted.get_sample_value("daybreak_operator_failures_total", failed) == 8
    operator.cluster.api_up = True
    await operator.step(POOL, api.heard())
    assert len(world.clusters) == 1


async def test_a_spec_that_cannot_be_read_is_left_alone() -> None:
    """A pool from a newer version, say: nothing is done to it."""
    world = World()
    api = Api(world)
    operator, _ = reconciler(world, api)
    broken = api.heard() | {"spec": {"replicas": "many"}}
    assert await operator.step(POOL, broken) == 10.0
    assert world.clusters == {}


@pytest.mark.parametrize("action", range(6))
@pytest.mark.parametrize("idle", ["workers", "cluster"])
def test_it_may_die_before_every_action(action: int, idle: str) -> None:
    """Up, down, another image and to sleep, with an operator that never lives longer than that."""
    world = World(hosts=2, idle=idle)
    driver = Driver(world)
    for wanted, image in ((2, 1), (1, 1), (2, 2), (0, 2)):
        world.image, world.replicas = image, wanted
        for _ in range(12):
            driver.operator(crash_after=action)
            driver.kuberay()
            driver.kubelets()
            driver.ray()
            world.now += 5
        driver.settle(wanted)
