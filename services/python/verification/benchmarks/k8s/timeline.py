"""Times what happens, seen from outside: polls the Kubernetes API and HTTP ten times a second."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from daybreak import Task
from testkit.kubernetes.deployment import WAKE_S, Deployment
from testkit.kubernetes.kube import RAY
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

LOOK_S = 0.1
REST_S = 15.0
"""The rest before each measurement, so that the end of the previous one does not affect it."""
CALLS = "daybreak_operator_kubernetes_calls_total"
METRICS_PORT = 9090


@dataclass(frozen=True, slots=True, kw_only=True)
class Ride:
    """From a POST at zero until the pods are gone. All but ``gone_s`` are seconds from the POST."""

    detected_s: float
    """KEDA has raised the pool."""
    patched_s: float
    """The operator has raised the RayCluster."""
    formed_s: float
    """The group has taken the task, by the task's own events (a pool's numbers may be a second old)."""
    gone_s: float
    """From the lowering of the pool until its last worker pod is gone."""
    phases: dict[str, float]
    """The phases in the pool's record."""

    @property
    def group_s(self) -> float:
        """From the patch to the group."""
        return self.formed_s - self.patched_s


def ride(deployment: Deployment, pool: str, on_ride: Callable[[], None] = lambda: None) -> Ride:
    """Run one task from zero and back to zero; call ``on_ride`` while the group is idle."""
    given = {"message": "ride", "steps": 1} if pool == "echo" else {"prompt": "a red circle", "steps": 1}
    began, began_at = time.monotonic(), time.time()
    task = deployment.submit(pool, given)

    def at(seen: Callable[[], object], what: str) -> float:
        wait_until(seen, timeout_s=WAKE_S, what=f"{what} of {pool}", pause_s=LOOK_S)
        return time.monotonic() - began

    detected = at(lambda: deployment.replicas_wanted(pool) > 0, "the detection")
    patched = at(lambda: _replicas(deployment, pool) > 0, "the patch")
    deployment.client.wait(task, timeout_s=WAKE_S)
    formed = _started(deployment, task) - began_at
    on_ride()
    at(lambda: deployment.replicas_wanted(pool) == 0, "the lowering")
    lowered = time.monotonic()
    at(lambda: not deployment.kube.workers(pool), "the end of the pods")
    gone = time.monotonic() - lowered
    deployment.assert_tasks_ended()
    phases = dict(deployment.client.pool(pool).wake.last)
    log(f"  {pool}: group after {formed:.1f} s, {formed - patched:.1f} s after the patch; {phases}")
    return Ride(
        detected_s=detected,
        patched_s=patched,
        formed_s=formed,
        gone_s=gone,
        phases=phases,
    )


def latencies(deployment: Deployment, pool: str, times: int) -> list[float]:
    """Milliseconds of ``times`` POSTs, one after another; their tasks have ended when this returns."""
    tasks, found = [], []
    for number in range(times):
        began = time.perf_counter()
        tasks.append(deployment.submit(pool, {"message": str(number), "steps": 0}))
        found.append((time.perf_counter() - began) * 1000)
    for task in tasks:
        deployment.client.wait(task, timeout_s=WAKE_S)
    return found


def burst(deployment: Deployment, pool: str, tasks: int) -> float:
    """Seconds from the first POST of a burst to the end of its last task."""
    request = {"pool": pool, "input": {"message": "burst", "steps": 1, "step_s": 0.01}}
    began = time.monotonic()
    made: list[Task] = []
    for first in range(0, tasks, 100):
        answer = deployment.client.submit_batch([request] * min(100, tasks - first))
        made += [item.task for item in answer.results if item.task is not None]
    assert len(made) == tasks, f"{tasks - len(made)} tasks were refused"

    def done() -> bool:
        """A pool's numbers may be a second old, so check the last tasks too."""
        now = deployment.client.pool(pool)
        return now.queued + now.running == 0 and all(_ended(deployment, task) for task in made[-10:])

    wait_until(done, timeout_s=WAKE_S + tasks, what=f"the end of {tasks} tasks", pause_s=LOOK_S)
    took = time.monotonic() - began
    assert all(_ended(deployment, task) for task in made), "some tasks have not ended"
    return took


def _started(deployment: Deployment, task: Task) -> float:
    """When it started, in seconds since the epoch; cluster and client share this machine's clock."""
    return next(event.at for event in deployment.client.events(task) if event.type == "started").timestamp()


def _ended(deployment: Deployment, task: Task) -> bool:
    return deployment.client.get(task).state.terminal


def rest(deployment: Deployment, for_s: float) -> float:
    """The operator's calls to the Kubernetes API per hour while nothing happens, without its watches."""
    forward = deployment.port_forward_pod("app.kubernetes.io/component=operator", METRICS_PORT)

    def calls() -> float:
        with urllib.request.urlopen(f"{forward.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(CALLS))

    before = calls()
    time.sleep(for_s)
    return (calls() - before) * 3600 / for_s


def _replicas(deployment: Deployment, pool: str) -> int:
    found = [
        cluster
        for cluster in deployment.kube.custom_objects(RAY)
        if cluster["metadata"]["name"].startswith(f"{pool}-")
    ]
    return sum(int(cluster["spec"]["workerGroupSpecs"][0].get("replicas") or 0) for cluster in found)
