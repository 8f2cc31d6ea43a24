"""Simulates KubeRay, kubelets, Ray Serve and groups on a real API server and a real Redis, for an operator under test.

Each part is as simple and as adversarial as possible: pods are objects that no node runs (their scheduler does not
exist), all heads share one HTTP server, and a group is a record that claims real tasks. Every removal of a busy
group before its drain deadline is recorded in ``wrong``, unless the group had already lost a pod.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from operator_heads import Heads

from daybreak_server import wiring
from daybreak_server.adapters.kube import parse
from daybreak_server.domain.ids import TaskId, new_group_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Claim, Finished, Released
from daybreak_server.operator.crd.resource import rfc3339
from daybreak_server.ports.cluster import POOL_LABEL, RayCluster
from daybreak_server.ports.cluster import Pod as PodView
from testkit.pools import Pool

RAY = ("ray.io", "v1")
STEP_S = 0.25
LEASE_S = 20.0


@dataclass(slots=True)
class Gang:
    """A group: ranks that belong to one head and run on all pods of one replica."""

    record: GroupRecord
    cluster: str
    claim: Claim | None = None
    draining_for: int | None = None
    """How many steps ago the group was marked to drain. ``None``: the group is not marked."""


@dataclass
class Simulation:
    """A simulation, which takes its steps on a thread of its own. ``drain_s`` is the setting of the pool."""

    api: client.ApiClient
    namespace: str
    pool: Pool
    heads: Heads
    ranks: int
    drain_s: float
    held: set[TaskId] = field(default_factory=set)
    """Tasks that keep running until they are removed from this set."""
    wrong: list[str] = field(default_factory=list)
    gangs: list[Gang] = field(default_factory=list)
    _numbers: Any = field(default_factory=count)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._custom = client.CustomObjectsApi(self.api)
        self._core = client.CoreV1Api(self.api)
        self._queue = wiring.build_queue(self.pool.settings, self.pool.name)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="simulation", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(30)
        self._queue.close()

    def _run(self) -> None:
        while not self._stopped.wait(STEP_S):
            try:
                self.step()
            except ApiException as exc:
                if exc.status not in {404, 409, 422}:  # another writer changed the object first
                    self.wrong.append(f"the simulation itself failed: {exc}")
                    raise

    def step(self) -> None:
        """Let every part take one step."""
        bodies = self._custom.list_namespaced_custom_object(*RAY, self.namespace, "rayclusters")["items"]
        pods = self._pods()
        names = {body["metadata"]["name"] for body in bodies}
        for pod in pods:
            if pod.cluster not in names:
                self._end(pod, "its RayCluster was deleted")
        for body in bodies:
            self._kuberay(body, [pod for pod in pods if pod.cluster == body["metadata"]["name"]])
        pods = self._pods()
        for pod in pods:
            if not pod.running:
                self._run_pod(pod.name)
        ready = {pod.cluster for pod in pods if pod.head and pod.ready}
        self.heads.up(ready)
        for body in bodies:
            self._serve(parse.ray_cluster(body), [pod for pod in pods if not pod.head])
        for gang in list(self.gangs):
            self._work(gang)

    def _pods(self) -> list[PodView]:
        items = self._core.list_namespaced_pod(self.namespace, label_selector=POOL_LABEL).items
        bodies = [self.api.sanitize_for_serialization(pod) for pod in items]
        return [pod for pod in map(parse.pod, bodies) if not pod.terminating]

    # KubeRay and the kubelets.

    def _kuberay(self, body: Mapping[str, Any], pods: list[PodView]) -> None:
        cluster = parse.ray_cluster(body)
        if cluster.suspend:
            for pod in pods:
                self._end(pod, "its RayCluster was suspended")
        elif not any(pod.head for pod in pods):
            self._make(body, head=True, replica="")
        else:
            self._workers(body, cluster, [pod for pod in pods if not pod.head])
        status = {
            "head": {"serviceName": f"{cluster.name}-head-svc"},
            "conditions": [
                {
                    "type": "RayClusterSuspended",
                    "status": str(cluster.suspend and not pods),
                    "reason": "Simulated",
                    "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
        }
        if body.get("status", {}).get("conditions") != status["conditions"]:
            resource = (*RAY, self.namespace, "rayclusters", cluster.name)
            self._custom.patch_namespaced_custom_object_status(
                *resource, {"status": status}, _content_type="application/merge-patch+json"
            )

    def _workers(self, body: Mapping[str, Any], cluster: RayCluster, pods: list[PodView]) -> None:
        replicas: dict[str, list[PodView]] = {}
        for pod in pods:
            replicas.setdefault(pod.replica, []).append(pod)
        for members in list(replicas.values()):
            if any(pod.name in cluster.workers_to_delete for pod in members):
                self._end_replica(replicas, members[0].replica, "the operator named its pod")
            elif len(members) < cluster.hosts:
                self._end_replica(replicas, members[0].replica, None)
        # If no pod is named for deletion, delete a replica with a task first, as the worst case for the operator.
        for name in sorted(replicas, key=lambda name: not self._works(replicas[name])):
            if len(replicas) <= cluster.replicas:
                break
            self._end_replica(replicas, name, "KubeRay chose it")
        for _ in range(cluster.replicas - len(replicas)):
            replica = f"{cluster.name}-r{next(self._numbers)}"
            for _host in range(cluster.hosts):
                self._make(body, head=False, replica=replica)

    def _end_replica(self, replicas: dict[str, list[PodView]], name: str, why: str | None) -> None:
        for pod in replicas.pop(name):
            self._end(pod, why)

    def _make(self, body: Mapping[str, Any], *, head: bool, replica: str) -> None:
        cluster, spec = body["metadata"]["name"], body["spec"]
        group = spec["headGroupSpec"] if head else spec["workerGroupSpecs"][0]
        labels = {
            **group["template"]["metadata"]["labels"],
            parse.CLUSTER_LABEL: cluster,
            parse.NODE_TYPE_LABEL: "head" if head else "worker",
            **({} if head else {parse.REPLICA_LABEL: replica}),
        }
        name = f"{cluster}-{'head' if head else 'worker'}-{next(self._numbers)}"
        spec = {
            "schedulerName": "nobody",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "ray", "image": "simulated"}],
        }
        self._core.create_namespaced_pod(
            self.namespace, {"metadata": {"name": name, "labels": labels}, "spec": spec}
        )

    def _run_pod(self, name: str) -> None:
        now = rfc3339(time.time())
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("PodScheduled", "Ready")
        ]
        running = {
            "name": "ray",
            "image": "simulated",
            "imageID": "",
            "ready": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }
        status = {"phase": "Running", "conditions": conditions, "containerStatuses": [running]}
        self._core.patch_namespaced_pod_status(name, self.namespace, {"status": status})

    def _end(self, pod: PodView, why: str | None) -> None:
        """Remove a pod. ``why``: the reason; ``None`` if the replica of the pod had already lost a pod."""
        for gang in [gang for gang in self.gangs if pod.name in gang.record.hosts]:
            self._take(gang, why)
        with contextlib.suppress(ApiException):
            self._core.delete_namespaced_pod(pod.name, self.namespace, grace_period_seconds=0)
        if pod.head:
            self.heads.gone(pod.cluster)
            for gang in [gang for gang in self.gangs if gang.cluster == pod.cluster]:
                self._take(gang, why)

    def _take(self, gang: Gang, why: str | None) -> None:
        """Stop the ranks of a gang."""
        late = gang.draining_for is not None and gang.draining_for * STEP_S >= self.drain_s
        if gang.claim is not None and why is not None and not late:
            self.wrong.append(f"{gang.record.id} worked on {gang.claim.lease.task}: {why}")
        if gang.claim is not None:
            self._queue.settle(gang.claim.lease, Released())
        self._queue.deregister(gang.record)
        self.gangs.remove(gang)

    def _works(self, pods: list[PodView]) -> bool:
        hosts = {pod.name for pod in pods}
        return any(gang.claim is not None and hosts.intersection(gang.record.hosts) for gang in self.gangs)

    # Ray Serve and the groups.

    def _serve(self, cluster: RayCluster, pods: list[PodView]) -> None:
        target = self.heads.target(cluster.name)
        gangs = [gang for gang in self.gangs if gang.cluster == cluster.name]
        if target is None:
            for gang in gangs:
                self._take(gang, "its application is gone")
            return
        # Serve does not know which gangs are busy. In the worst case, it stops the busy gangs first.
        for gang in sorted(gangs, key=lambda gang: gang.claim is None)[
            : max(0, len(gangs) - target // self.ranks)
        ]:
            self._take(gang, "Serve scaled down")
        taken = {host for gang in self.gangs for host in gang.record.hosts}
        free: dict[str, list[str]] = {}
        for pod in pods:
            if pod.cluster == cluster.name and pod.ready and pod.name not in taken:
                free.setdefault(pod.replica, []).append(pod.name)
        whole = [hosts for hosts in free.values() if len(hosts) == cluster.hosts]
        for hosts in whole[: max(0, target // self.ranks - len(gangs))]:
            record = GroupRecord(
                id=new_group_id(), state=GroupState.STARTING, ranks=self.ranks, hosts=tuple(sorted(hosts))
            )
            self.gangs.append(Gang(record=record, cluster=cluster.name))
        self.heads.runs(cluster.name, self.ranks * sum(gang.cluster == cluster.name for gang in self.gangs))

    def _work(self, gang: Gang) -> None:
        answer = self._queue.register(gang.record, ttl_s=LEASE_S)
        gang.draining_for = (gang.draining_for or 0) + 1 if answer.drain else None
        if gang.record.state is GroupState.STARTING:
            gang.record = GroupRecord(
                id=gang.record.id, state=GroupState.IDLE, ranks=self.ranks, hosts=gang.record.hosts
            )
        elif gang.claim is None:
            gang.claim = None if answer.drain else self._queue.claim(gang.record, wait_s=0)
        elif gang.draining_for is not None and gang.draining_for * STEP_S >= self.drain_s:
            self._queue.settle(gang.claim.lease, Released())
            gang.claim = None
        elif gang.claim.lease.task in self.held:
            self._queue.renew(gang.claim.lease)
        else:
            self._queue.settle(gang.claim.lease, Finished(artifacts=()))
            gang.claim = None
