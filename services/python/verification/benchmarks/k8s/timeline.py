"""Measures wakes, bursts and requests from outside: polls the Kubernetes API and the gateway ten times a second."""

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

POLL_S = 0.1
PAUSE_S = 15.0
"""The pause before each measurement, so that the end of the previous one does not affect it."""
CALLS = "daybreak_operator_kubernetes_calls_total"
METRICS_PORT = 9090


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeCycle:
    """A pool's way from zero to a running task and back.

    ``detected_s``, ``patched_s`` and ``formed_s`` are seconds from the POST.
    """

    detected_s: float
    """Until KEDA has raised the pool's ``replicas``."""
    patched_s: float
    """Until the operator has raised the ``replicas`` of the RayCluster."""
    formed_s: float
    """Until the group has claimed the task. This time comes from the task's events, because the gateway's numbers of a
    pool may be a second old."""
    gone_s: float
    """From the moment when KEDA lowers ``replicas`` until the last pod of the group is gone."""
    phases: dict[str, float]
    """The duration of each phase of the wake, from the pool's record."""

    @property
    def group_s(self) -> float:
        """Seconds from the operator's patch until the group has claimed the task."""
        return self.formed_s - self.patched_s


def run_cycle(deployment: Deployment, pool: str, while_idle: Callable[[], None] = lambda: None) -> WakeCycle:
    """Run one task in a pool at zero, and wait until the pool is at zero again. Call ``while_idle`` after the task,
    while the group is idle."""
    task_input = {"message": "wake", "steps": 1} if pool == "echo" else {"prompt": "a red circle", "steps": 1}
    began, began_at = time.monotonic(), time.time()
    task = deployment.submit(pool, task_input)

    def at(reached: Callable[[], object], what: str) -> float:
        wait_until(reached, timeout_s=WAKE_S, what=f"{what} of {pool}", pause_s=POLL_S)
        return time.monotonic() - began

    detected = at(lambda: deployment.replicas_wanted(pool) > 0, "the detection")
    patched = at(lambda: _replicas(deployment, pool) > 0, "the patch")
    deployment.client.wait(task, timeout_s=WAKE_S)
    formed = _started(deployment, task) - began_at
    while_idle()
    at(lambda: deployment.replicas_wanted(pool) == 0, "the lowering")
    lowered = time.monotonic()
    at(lambda: not deployment.kube.group_pods(pool), "the end of the pods")
    gone = time.monotonic() - lowered
    deployment.assert_tasks_ended()
    phases = dict(deployment.client.pool(pool).wake.last)
    log(f"  {pool}: group after {formed:.1f} s, {formed - patched:.1f} s after the patch; {phases}")
    return WakeCycle(
        detected_s=detected,
        patched_s=patched,
        formed_s=formed,
        gone_s=gone,
        phases=phases,
    )


def latencies(deployment: Deployment, pool: str, times: int) -> list[float]:
    """Submit ``times`` tasks, one after the other, and wait until all have ended. Returns how many milliseconds each
    POST took."""
    tasks, times_ms = [], []
    for number in range(times):
        began = time.perf_counter()
        tasks.append(deployment.submit(pool, {"message": str(number), "steps": 0}))
        times_ms.append((time.perf_counter() - began) * 1000)
    for task in tasks:
        deployment.client.wait(task, timeout_s=WAKE_S)
    return times_ms


def burst(deployment: Deployment, pool: str, tasks: int) -> float:
    """Seconds from the first POST of a burst to the end of its last task."""
    request = {"pool": pool, "input": {"message": "burst", "steps": 1, "step_s": 0.01}}
    began = time.monotonic()
    submitted: list[Task] = []
    for first in range(0, tasks, 100):
        response = deployment.client.submit_batch([request] * min(100, tasks - first))
        submitted += [item.task for item in response.results if item.task is not None]
    assert len(submitted) == tasks, f"{tasks - len(submitted)} tasks were refused"

    def all_ended() -> bool:
        """A pool's numbers may be a second old, so check the last tasks too."""
        view = deployment.client.pool(pool)
        return view.queued + view.running == 0 and all(_ended(deployment, task) for task in submitted[-10:])

    wait_until(all_ended, timeout_s=WAKE_S + tasks, what=f"the end of {tasks} tasks", pause_s=POLL_S)
    elapsed_s = time.monotonic() - began
    assert all(_ended(deployment, task) for task in submitted), "some tasks have not ended"
    return elapsed_s


def _started(deployment: Deployment, task: Task) -> float:
    """When the task started, in seconds since the epoch; cluster and client share this machine's clock."""
    return next(event.at for event in deployment.client.events(task) if event.type == "started").timestamp()


def _ended(deployment: Deployment, task: Task) -> bool:
    return deployment.client.get(task).state.terminal


def idle_calls_an_hour(deployment: Deployment, for_s: float) -> float:
    """The operator's calls to the Kubernetes API per hour while nothing happens; watches are not counted."""
    forward = deployment.port_forward_pod("app.kubernetes.io/component=operator", METRICS_PORT)

    def calls() -> float:
        with urllib.request.urlopen(f"{forward.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(CALLS))

    before = calls()
    time.sleep(for_s)
    return (calls() - before) * 3600 / for_s


def _replicas(deployment: Deployment, pool: str) -> int:
    clusters = [
        cluster
        for cluster in deployment.kube.custom_objects(RAY)
        if cluster["metadata"]["name"].startswith(f"{pool}-")
    ]
    return sum(int(cluster["spec"]["workerGroupSpecs"][0].get("replicas") or 0) for cluster in clusters)
