"""The reconcile step: what it remembers, how it handles errors, and that a crash before any action does no harm."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from operator_driver import Driver
from operator_fakes import FakePorts
from operator_world import POOL, UID, World
from prometheus_client import CollectorRegistry

from daybreak_server.observability import catalogue
from daybreak_server.observability.prometheus_meter import PrometheusMeter
from daybreak_server.operator.controller.executor import Executor
from daybreak_server.operator.controller.metrics import OperatorMetrics
from daybreak_server.operator.controller.reconciler import Reconciler
from daybreak_server.operator.planner.actions import PutApplication
from daybreak_server.ports.cluster import ClusterUnavailableError
from daybreak_server.ports.metrics import Exporter


class Api:
    """An API server that has one pool."""

    def __init__(self, world: World) -> None:
        self.world, self.reads = world, 0

    def manifest(self, *, status: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The pool's object, optionally with an older status."""
        return {
            "metadata": {"name": POOL, "namespace": "default", "uid": UID, "generation": 1},
            "spec": self.world.spec().model_dump(by_alias=True, exclude_none=True, mode="json"),
            "status": dict(self.world.status if status is None else status),
        }

    async def read(self, name: str) -> Mapping[str, Any] | None:
        """Read the object from the API server."""
        self.reads += 1
        return self.manifest()


def reconciler(world: World, api: Api) -> tuple[Any, CollectorRegistry]:
    """A new operator, and its metrics."""
    ports, metrics_registry = FakePorts(world), CollectorRegistry()
    meter = PrometheusMeter(catalogue.exported_by(Exporter.OPERATOR), metrics_registry)
    return Reconciler(ports, ports, ports, api.read, OperatorMetrics(meter)), metrics_registry


async def test_an_old_status_from_the_watch_is_ignored() -> None:
    """The operator reads the status once, and from then on uses the status that it wrote."""
    world = World()
    api = Api(world)
    operator, metrics_registry = reconciler(world, api)
    await operator.step(POOL, api.manifest())
    await operator.step(POOL, api.manifest(status={}))
    assert api.reads == 1
    assert metrics_registry.get_sample_value(
        "daybreak_operator_actions_total", {"pool": POOL, "action": "WriteStatus"}
    ) == pytest.approx(1)


async def test_an_error_ends_the_step_and_the_backoff_grows() -> None:
    """While Kubernetes is unreachable, the operator retries less and less often. After the outage, it continues."""
    world = World()
    api = Api(world)
    operator, metrics_registry = reconciler(world, api)
    operator.cluster.api_up = False
    pauses = [await operator.step(POOL, api.manifest()) for _ in range(8)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 10.0
    failed = {"pool": POOL, "error": "ClusterUnavailableError"}
    assert metrics_registry.get_sample_value("daybreak_operator_failures_total", failed) == 8
    operator.cluster.api_up = True
    await operator.step(POOL, api.manifest())
    assert len(world.clusters) == 1


async def test_a_refused_raycluster_is_reported_and_does_not_hold_up_the_other() -> None:
    """The old groups stay and scale, one Event reports the cause, and the operator recovers by itself."""
    world = World()
    world.replicas = 1
    driver = Driver(world)
    driver.settle(1)
    api = Api(world)
    operator, _ = reconciler(world, api)
    (old,) = world.clusters
    world.image, world.replicas = 2, 2
    operator.cluster.refuses = "Kubernetes says 422 Invalid: num-cpus: must be of type string"
    for _ in range(3):
        await operator.step(POOL, api.manifest())
        world.now += 10
    assert list(world.clusters) == [old]
    assert world.clusters[old]["spec"]["workerGroupSpecs"][0]["replicas"] == 2
    healthy = next(condition for condition in world.status["conditions"] if condition["type"] == "Healthy")
    assert (healthy["status"], healthy["reason"]) == ("False", "RayClusterRefused")
    assert "num-cpus: must be of type string" in healthy["message"]
    assert operator.cluster.emitted.count(("Warning", "RayClusterRefused")) == 1
    operator.cluster.refuses = ""
    for _ in range(2):
        await operator.step(POOL, api.manifest())
    assert len(world.clusters) == 2
    healthy = next(condition for condition in world.status["conditions"] if condition["type"] == "Healthy")
    assert healthy["status"] == "True"


async def test_a_head_that_refuses_its_application_does_not_hold_up_the_other() -> None:
    """The operator calls every head, and raises the first failure at the end."""
    world = World()
    ports, called = FakePorts(world), []
    clusters = [SimpleNamespace(name=name) for name in ("old", "new")]

    class RecordingExecutor(Executor):
        async def execute(self, pool: Any, action: Any) -> None:
            called.append(action.cluster.name)
            if action.cluster.name == "old":
                raise ClusterUnavailableError("the old head does not answer")

    executor = RecordingExecutor(cluster=ports, serve=ports, groups=ports)
    actions = [PutApplication(cluster=cluster, config={}) for cluster in clusters]  # type: ignore[arg-type]
    with pytest.raises(ClusterUnavailableError, match="the old head"):
        await executor.execute_all(world.pool(), actions, done=lambda _: None, refused=print)
    assert called == ["old", "new"]


def with_wrong_time_zone(manifest: dict[str, Any], generation: int) -> dict[str, Any]:
    """``manifest`` with an unknown time zone, which the CRD accepts."""
    window = {"from": "08:00", "to": "18:00", "timeZone": "Berlin", "groups": 1}
    metadata = {**manifest["metadata"], "generation": generation}
    return {**manifest, "metadata": metadata, "spec": {**manifest["spec"], "warmSchedule": [window]}}


async def test_an_unreadable_spec_is_reported_once_and_nothing_is_changed() -> None:
    """A condition names the field and what to write; an Event, the report and a metric also show the error.

    After that the operator writes nothing more.
    """
    world = World(replicas=1)
    api = Api(world)
    operator, metrics_registry = reconciler(world, api)
    await operator.step(POOL, api.manifest())
    clusters, ready = copy.deepcopy(world.clusters), world.status["conditions"][0]
    operator.cluster.emitted.clear()
    await operator.step(POOL, with_wrong_time_zone(api.manifest(), 2))
    conditions = {condition["type"]: condition for condition in world.status["conditions"]}
    healthy = conditions["Healthy"]
    assert (healthy["status"], healthy["reason"], healthy["observedGeneration"]) == (
        "False",
        "SpecInvalid",
        2,
    )
    for words in ("spec.warmSchedule[0].timeZone", "'Berlin'", "use an IANA name such as Europe/Berlin"):
        assert words in healthy["message"]
    assert (world.status["phase"], world.status["observedGeneration"]) == ("Blocked", 2)
    assert conditions["Ready"] == ready
    assert operator.cluster.emitted == [("Warning", "SpecInvalid")]
    assert world.report is not None
    assert (world.report.reason, world.report.message) == ("SpecInvalid", healthy["message"])
    written = copy.deepcopy(world.status)
    assert await operator.step(POOL, with_wrong_time_zone(api.manifest(), 2)) >= 10.0
    assert (world.status, world.clusters) == (written, clusters)
    assert operator.cluster.emitted == [("Warning", "SpecInvalid")]
    failed = {"pool": POOL, "error": "SpecInvalidError"}
    assert metrics_registry.get_sample_value("daybreak_operator_failures_total", failed) == 2
    assert metrics_registry.get_sample_value("daybreak_operator_pool_healthy", {"pool": POOL}) == 0


async def test_a_corrected_spec_recovers_by_itself() -> None:
    """The pool recovers under a new operator too, because the new operator continues from the status."""
    world = World(replicas=1)
    api = Api(world)
    operator, _ = reconciler(world, api)
    await operator.step(POOL, with_wrong_time_zone(api.manifest(), 1))
    assert (world.clusters, world.status["selector"]) == (
        {},
        "daybreak.dev/pool=video,daybreak.dev/role=rank",
    )
    new_operator, _ = reconciler(world, api)
    before = copy.deepcopy(world.status)
    await new_operator.step(POOL, with_wrong_time_zone(api.manifest(), 1))
    assert (world.status, new_operator.cluster.emitted) == (before, [])
    await new_operator.step(POOL, api.manifest())
    healthy = next(condition for condition in world.status["conditions"] if condition["type"] == "Healthy")
    assert (healthy["status"], len(world.clusters)) == ("True", 1)
    assert ("Normal", "Recovered") in new_operator.cluster.emitted


async def test_a_deleted_pool_gets_no_report_about_its_spec() -> None:
    """Nobody would read the report, and the object may be gone."""
    world = World()
    api = Api(world)
    operator, _ = reconciler(world, api)
    deleting = with_wrong_time_zone(api.manifest(), 1)
    deleting["metadata"]["deletionTimestamp"] = "2026-11-21T00:00:00Z"
    await operator.step(POOL, deleting)
    assert (world.status, operator.cluster.emitted) == ({}, [])


async def test_a_status_that_cannot_be_read_is_counted() -> None:
    """An operator may be unable to read the status that a newer operator wrote.

    In this case, the pool stays unchanged, and a metric counts the failure.
    """
    world = World()
    api = Api(world)
    operator, metrics_registry = reconciler(world, api)
    world.status = {"ready": "many"}
    assert await operator.step(POOL, api.manifest()) == 10.0
    assert (world.status, world.clusters) == ({"ready": "many"}, {})
    failed = {"pool": POOL, "error": "ValidationError"}
    assert metrics_registry.get_sample_value("daybreak_operator_failures_total", failed) == 1


@pytest.mark.parametrize("action", range(6))
@pytest.mark.parametrize("idle", ["workers", "cluster"])
def test_the_operator_may_die_before_every_action(action: int, idle: str) -> None:
    """The pool still scales up, down and to zero, and changes its image.

    During each change, the operator first dies twelve times, each time after ``action`` actions.
    """
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
