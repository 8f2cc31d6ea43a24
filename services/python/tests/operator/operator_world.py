"""A simulated world for the operator: KubeRay, kubelets, Ray Serve, groups and KEDA. They behave as the real ones do.

The world is one object. It changes only when a test calls one of its methods. Where the real systems are free to
choose, the world chooses at random, from a seed: the workers that KubeRay removes if none is named, the gang that Serve
stops, the hosts on which a gang forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from random import Random
from typing import Any

from operator_gangs import App, BusyGroupLostError, Gang
from operator_samples import spec_of

from daybreak_server.adapters.kube import parse
from daybreak_server.domain.ids import GroupId, TaskId
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolReport, PoolView
from daybreak_server.operator.crd.resource import GeneratorPool, PoolSpec, PoolStatus
from daybreak_server.ports.cluster import ClusterView, Pod, RayCluster, ServeView, WaitingReason
from daybreak_server.ports.store_errors import StoreUnavailableError

POOL = "video"
UID = "pool-uid"
LEASE_S = 15.0


@dataclass(slots=True)
class World:
    """The whole state. A group has ``hosts`` pods and ``ranks`` ranks."""

    seed: int = 0
    hosts: int = 2
    ranks: int = 2
    idle: str = "workers"
    now: float = 1_800_000_000.0
    replicas: int = 0
    image: int = 1
    paused: bool = False
    bad_images: set[int] = field(default_factory=set)
    quota: bool = False
    silent: bool = False
    """Heads are ready but do not answer."""
    frozen: set[str] = field(default_factory=set)
    """Pods on dead nodes. They stay terminating and never end."""
    store_up: bool = True
    status: dict[str, Any] = field(default_factory=dict)
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    apps: dict[str, App] = field(default_factory=dict)
    gangs: dict[str, Gang] = field(default_factory=dict)
    drains: dict[str, float] = field(default_factory=dict)
    """For each group that is marked to drain: when it was marked."""
    cordoned: set[str] = field(default_factory=set)
    """Hosts whose groups are marked to drain, including groups that register later."""
    report: PoolReport | None = None
    """The report that was published last."""
    waiting: list[str] = field(default_factory=list)
    writers: list[str] = field(default_factory=list)
    """Paths of the fields that the operator has written."""
    count: int = 0
    random: Random = field(default_factory=Random)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    # Actions of people and KEDA.

    def submit(self, number: int = 1) -> None:
        """Submit tasks."""
        for _ in range(number):
            self.waiting.append(self._new("task"))

    def spec(self) -> PoolSpec:
        """The pool's current spec."""
        return spec_of(self.replicas, self.image, self.ranks, self.hosts, self.paused, self.idle)

    def pool(self) -> GeneratorPool:
        """The GeneratorPool that the API server stores."""
        status = PoolStatus.model_validate(self.status)
        return GeneratorPool(name=POOL, namespace="default", uid=UID, spec=self.spec(), status=status)

    # Observations.

    def view(self) -> ClusterView:
        """The current state of Kubernetes."""
        return ClusterView(
            clusters=tuple(parse.ray_cluster(body) for body in self.clusters.values()),
            pods=tuple(self.pods.values()),
        )

    def store(self) -> PoolView:
        """The current state of Redis."""
        groups = [self._record(gang) for gang in self.gangs.values() if gang.state is not None]
        running = sum(bool(group.tasks) for group in groups)
        return PoolView(
            name=POOL,
            queued=len(self.waiting),
            running=running,
            live=len(self.waiting) + running,
            groups=tuple(groups),
            cordoned=tuple(sorted(self.cordoned)),
        )

    def serve(self, cluster: str) -> ServeView | None:
        """The state that the head's REST API shows; ``None`` while it does not answer."""
        head = next((pod for pod in self.pods.values() if pod.head and pod.cluster == cluster), None)
        if self.silent or head is None or not head.ready or head.terminating:
            return None
        app = self.apps.get(cluster)
        if app is None:
            return ServeView()
        gangs = [gang for gang in self.alive(cluster) if not self._ending(gang)]
        return ServeView(
            status=app.status, attempt=app.attempt, target=app.target, running=len(gangs) * self.ranks
        )

    def alive(self, cluster: str | None = None) -> list[Gang]:
        """The gangs whose ranks run."""
        return [
            gang
            for gang in self.gangs.values()
            if gang.dead_at is None and (cluster is None or gang.cluster == cluster)
        ]

    def busy_gangs(self) -> list[Gang]:
        """The gangs with a task."""
        return [gang for gang in self.alive() if gang.task is not None]

    # KubeRay.

    def kuberay(self, name: str, body: Mapping[str, Any] | None = None) -> None:
        """Take one reconcile step, in which KubeRay sees the current RayCluster or an older ``body``."""
        current = self.clusters.get(name)
        if current is None:
            for pod in [pod for pod in self.pods.values() if pod.cluster == name]:
                self._end(pod.name, why="its RayCluster was deleted")
            self.apps.pop(name, None)
            return
        observed_spec = parse.ray_cluster(body or current)
        cluster_pods = [pod for pod in self.pods.values() if pod.cluster == name]
        if observed_spec.suspend:
            for pod in cluster_pods:
                self._end(pod.name, why="its RayCluster was suspended")
            self._condition(current, "RayClusterSuspended", not cluster_pods)
            return
        self._condition(current, "RayClusterSuspended", False)
        if not any(pod.head for pod in cluster_pods) and not self.quota:
            self._pod(name, head=True, replica="")
        self._workers(name, observed_spec)
        self._condition(current, "RayClusterReplicaFailure", self.quota, "exceeded quota: pods=3")

    def _workers(self, name: str, observed_spec: RayCluster) -> None:
        for victim in observed_spec.workers_to_delete:
            if victim in self.pods:
                self._end_replica(name, self.pods[victim].replica, why="it was named")
        names = {pod.replica for pod in self.pods.values() if pod.cluster == name and not pod.head}
        whole = []
        for replica in sorted(names):
            pods = [pod for pod in self.pods.values() if pod.replica == replica and pod.cluster == name]
            if len(pods) < self.hosts or any(pod.terminating for pod in pods):
                # A host is missing or terminating, so KubeRay deletes the replica's other hosts too.
                self._end_replica(name, replica, why=None)
            else:
                whole.append(replica)
        while len(whole) > observed_spec.replicas:
            self._end_replica(name, whole.pop(self.random.randrange(len(whole))), why="KubeRay chose it")
        if not self.quota:
            for _ in range(observed_spec.replicas - len(whole)):
                replica = self._new("replica")
                for _host in range(self.hosts):
                    self._pod(name, head=False, replica=replica)

    def _pod(self, cluster: str, *, head: bool, replica: str) -> None:
        name = self._new("head" if head else "worker")
        image = int(self._image(cluster))
        self.pods[name] = Pod(
            name=name,
            cluster=cluster,
            head=head,
            replica=replica or name,
            created_at=self.now,
            waiting=WaitingReason(reason="ImagePullBackOff") if image in self.bad_images else None,
        )

    def _image(self, cluster: str) -> str:
        head = self.clusters[cluster]["spec"]["headGroupSpec"]
        return str(head["template"]["spec"]["containers"][0]["image"]).partition(":")[2]

    def _end_replica(self, cluster: str, replica: str, *, why: str | None) -> None:
        for pod in [p for p in self.pods.values() if p.cluster == cluster and p.replica == replica]:
            self._end(pod.name, why=why)

    def _end(self, name: str, *, why: str | None) -> None:
        """Send SIGTERM to a pod.

        Raises an error, which contains ``why``, if the pod's group must not stop now. If ``why`` is ``None``, the
        replica was broken already, so its group may stop at any time.
        """
        pod = self.pods[name]
        if pod.terminating:
            return
        self.pods[name] = replace(pod, terminating=True)
        for gang in self.alive():
            if name in gang.hosts and why is not None:
                self._check_may_stop(gang, f"{name} must end: {why}")

    def _check_may_stop(self, gang: Gang, why: str) -> None:
        since = self.drains.get(gang.id)
        whole = all(host in self.pods and not self._killed(host) for host in gang.hosts)
        if gang.task is not None and whole and (since is None or self.now < since + 30):
            raise BusyGroupLostError(f"{gang.id} had {gang.task}, drain mark {since}, now {self.now}: {why}")

    def _killed(self, host: str) -> bool:
        return not self.pods[host].running

    # Kubelets.

    def kubelet(self, name: str) -> None:
        """Move one pod a step towards running, or towards its end."""
        pod = self.pods[name]
        if name in self.frozen:
            return
        if pod.terminating:
            for gang in self.alive():
                if name in gang.hosts:
                    self._stop(gang, graceful=True)
            del self.pods[name]
            if pod.head:
                self._head_gone(pod.cluster)
        elif int(self._image_of(pod)) in self.bad_images:
            self.pods[name] = replace(pod, waiting=WaitingReason(reason="ImagePullBackOff"))
        elif pod.scheduled_at is None:
            self.pods[name] = replace(pod, scheduled_at=self.now, waiting=None)
        elif not pod.running:
            self.pods[name] = replace(pod, running=True, running_at=self.now, waiting=None)
        else:
            self.pods[name] = replace(pod, ready=True)

    def _image_of(self, pod: Pod) -> str:
        return self._image(pod.cluster) if pod.cluster in self.clusters else "0"

    def freeze(self, name: str) -> None:
        """Kill the node of a pod. Nobody deletes the node, so the pod stays terminating."""
        pod = self.pods[name]
        self.kill(name)
        self.pods[name] = replace(pod, terminating=True, ready=False, ends_at=self.now + 30)
        self.frozen.add(name)

    def kill(self, name: str) -> None:
        """Kill the node of a pod. The pod disappears without SIGTERM."""
        pod = self.pods.pop(name)
        for gang in self.alive():
            if name in gang.hosts:
                self._stop(gang, graceful=False)
        if pod.head:
            self._head_gone(pod.cluster)

    def _head_gone(self, cluster: str) -> None:
        """Lose a head. The head has no fault tolerance, so everything on its cluster dies with it."""
        self.apps.pop(cluster, None)
        for gang in self.alive(cluster):
            self._stop(gang, graceful=False)

    def _stop(self, gang: Gang, *, graceful: bool) -> None:
        if graceful:
            self._release(gang)
            self._forget(gang)
        else:
            gang.dead_at = self.now

    # Ray Serve.

    def serve_step(self, cluster: str) -> None:
        """Move Serve towards its target: start gangs on free hosts, or stop gangs, first those whose pods must end."""
        app = self.apps.get(cluster)
        if app is None or self.serve(cluster) is None:
            return
        if app.status == "DEPLOYING":
            app.status = "RUNNING"
        if app.status == "DEPLOY_FAILED" or app.target % self.ranks:
            return
        gangs = self.alive(cluster)
        while len(gangs) * self.ranks > app.target:
            leaving = [gang for gang in gangs if self._ending(gang)]
            gang = self.random.choice(leaving or gangs)
            gangs.remove(gang)
            self._check_may_stop(gang, "Serve scaled down")
            self._stop(gang, graceful=True)
        taken = {host for gang in gangs for host in gang.hosts}
        free = [
            pod.name
            for pod in self.pods.values()
            if pod.cluster == cluster
            and not pod.head
            and pod.ready
            and not pod.terminating
            and pod.name not in taken
        ]
        while len(gangs) * self.ranks < app.target and len(free) >= self.hosts:
            chosen = self._apart(free)
            free = [host for host in free if host not in chosen]
            gang = Gang(id=self._new("gang"), cluster=cluster, hosts=tuple(sorted(chosen)))
            self.gangs[gang.id] = gang
            gangs.append(gang)

    def _apart(self, free: list[str]) -> list[str]:
        """Choose hosts for a gang, usually across as many replicas as possible."""
        shuffled = self.random.sample(free, len(free))
        if self.random.random() < 0.2:
            return shuffled[: self.hosts]
        by_replica: dict[str, list[str]] = {}
        for host in shuffled:
            by_replica.setdefault(self.pods[host].replica, []).append(host)
        rounds = zip_longest(*by_replica.values())
        return [host for hosts in rounds for host in hosts if host is not None][: self.hosts]

    def _ending(self, gang: Gang) -> bool:
        return any(host not in self.pods or self.pods[host].terminating for host in gang.hosts)

    # Groups.

    def group_step(self, name: str) -> None:
        """Let a group register, load, claim, work or release. If it is dead, let its lease end."""
        gang = self.gangs[name]
        if gang.dead_at is not None:
            if self.now - gang.dead_at >= LEASE_S:
                self._release(gang)
                self._forget(gang)
            return
        if not self.store_up:
            return
        if self.cordoned.intersection(gang.hosts):
            self.drains.setdefault(name, self.now)
        if gang.state is None or gang.state is GroupState.STARTING:
            gang.state = GroupState.LOADING if gang.state else GroupState.STARTING
        elif gang.state is GroupState.LOADING:
            gang.state, gang.since = GroupState.IDLE, self.now
        elif gang.task is not None:
            since = self.drains.get(name)
            if gang.hung:
                return
            if since is not None and self.now - since >= 30:
                self._release(gang)
            elif self.random.random() < 0.5:
                gang.task, gang.since = None, self.now
        elif name not in self.drains and self.waiting:
            gang.task, gang.since = self.waiting.pop(0), self.now

    def _release(self, gang: Gang) -> None:
        if gang.task is not None:
            self.waiting.insert(0, gang.task)
            gang.task, gang.since = None, self.now

    def _forget(self, gang: Gang) -> None:
        del self.gangs[gang.id]
        self.drains.pop(gang.id, None)

    def _record(self, gang: Gang) -> GroupRecord:
        assert gang.state is not None
        state = gang.state
        if gang.task is not None:
            state = GroupState.BUSY
        elif gang.id in self.drains and state is GroupState.IDLE:
            state = GroupState.DRAINING
        return GroupRecord(
            id=GroupId(gang.id),
            state=state,
            ranks=self.ranks,
            since_ms=int(gang.since * 1000),
            tasks=(TaskId(gang.task),) if gang.task else (),
            hosts=gang.hosts,
            drain=gang.id in self.drains,
        )

    # Helpers.

    def require_store(self) -> None:
        """Raise if Redis is down."""
        if not self.store_up:
            raise StoreUnavailableError("Connection refused")

    def bump(self, name: str) -> None:
        """Give the object a new version."""
        self.clusters[name]["metadata"]["resourceVersion"] = self._new("version")

    def _condition(self, body: dict[str, Any], kind: str, true: bool, message: str = "") -> None:
        status = body.setdefault("status", {})
        conditions = [condition for condition in status.get("conditions", []) if condition["type"] != kind]
        new = {"type": kind, "status": "True" if true else "False", "message": message}
        if new not in status.get("conditions", []):
            status["conditions"] = [*conditions, new]
            self.bump(body["metadata"]["name"])

    def _new(self, what: str) -> str:
        self.count += 1
        return f"{what}-{self.count}"
