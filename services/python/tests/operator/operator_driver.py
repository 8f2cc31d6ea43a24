"""Drives the operator in a simulated world, where it observes, plans and acts.

It may observe stale views, and may crash before any action.
"""

from __future__ import annotations

import copy
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from operator_fakes import FakePorts
from operator_world import POOL, World

from daybreak_server.domain.causes import Cause
from daybreak_server.operator.controller.executor import Executor
from daybreak_server.operator.planner.actions import Action, PoolPlan
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.plan import plan
from daybreak_server.ports.cluster import ClusterError, ClusterView
from daybreak_server.ports.store_errors import StoreError

REDIS_DOWN = Cause(reason="RedisUnreachable", message="Connection refused")

MAX_PAST_VIEWS = 8


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the world never waits")


@dataclass(slots=True)
class Driver:
    """Runs a world step by step. ``past`` holds the views that stale caches may still show."""

    world: World
    past: list[tuple[ClusterView, Any]] = field(default_factory=list)
    bodies: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """For each RayCluster, the versions that KubeRay may read next. KubeRay never returns to an older version."""
    refused: list[str] = field(default_factory=list)

    def remember(self) -> None:
        """Record the current state, which caches may show later."""
        self.past.append((self.world.view(), self.world.spec()))
        del self.past[:-MAX_PAST_VIEWS]
        for name, body in self.world.clusters.items():
            versions = self.bodies.setdefault(name, [])
            if (
                not versions
                or versions[-1]["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]
            ):
                versions.append(copy.deepcopy(body))

    def observe(self, *, clusters: int = 0, pods: int = 0, spec: int = 0) -> Observed:
        """Observe the world. Each argument makes one part of the view stale, by that number of recorded states."""
        self.remember()
        world = self.world
        past_views = [self.past[max(0, len(self.past) - 1 - lag)] for lag in (clusters, pods, spec)]
        view = ClusterView(clusters=past_views[0][0].clusters, pods=past_views[1][0].pods)
        serve = {c.name: shown for c in view.clusters if (shown := world.serve(c.name)) is not None}
        return Observed(
            now=world.now,
            pool=world.pool().model_copy(update={"spec": past_views[2][1]}),
            view=view,
            serve=serve,
            store=world.store() if world.store_up else None,
            store_error=None if world.store_up else REDIS_DOWN,
        )

    def operator(
        self,
        *,
        clusters: int = 0,
        pods: int = 0,
        spec: int = 0,
        crash_after: int | None = None,
        group_steps: int = 0,
    ) -> PoolPlan:
        """Take one reconcile step. With ``crash_after``, the operator dies after that many actions.

        Before each action, Serve and the groups take ``group_steps`` steps, so the observation becomes out of date.
        """
        observed = self.observe(clusters=clusters, pods=pods, spec=spec)
        planned = plan(observed)
        executor = Executor(
            cluster=FakePorts(self.world), serve=FakePorts(self.world), groups=FakePorts(self.world)
        )
        actions: tuple[Action, ...] = planned.actions
        for action in actions if crash_after is None else actions[:crash_after]:
            for _ in range(group_steps):
                self.ray()
            try:
                run(executor.execute(observed.pool, action))
            except (ClusterError, StoreError) as exc:
                self.refused.append(str(exc))
                break
            self.remember()
        return planned

    def kuberay(self, *, stale: int = 0) -> None:
        """Let KubeRay reconcile each RayCluster from a version that lags at most ``stale`` versions behind."""
        self.remember()
        for name in [*self.world.clusters, *{pod.cluster for pod in self.world.pods.values()}]:
            versions = self.bodies.get(name, [])
            at = max(0, len(versions) - 1 - stale)
            del versions[:at]
            self.world.kuberay(name, versions[0] if versions else None)

    def kill(self, name: str, *, stays: bool = False) -> None:
        """Kill the node of a pod. With ``stays``, nobody deletes the node, so the pod stays.

        KubeRay knows all earlier writes when it learns of the death. This excludes one order of events, which only
        KubeRay could make harmless: the operator names a victim; one of the victim's hosts dies; KubeRay replaces the
        host, because it knows only the old number of replicas; then KubeRay reads the lower number, and deletes an
        arbitrary replica.
        """
        cluster = self.world.pods[name].cluster
        if stays:
            self.world.freeze(name)
        else:
            self.world.kill(name)
        self.remember()
        del self.bodies.get(cluster, [])[:-1]

    def kubelets(self) -> None:
        """Let every pod take one step."""
        for name in list(self.world.pods):
            if name in self.world.pods:
                self.world.kubelet(name)

    def ray(self) -> None:
        """Let Serve and every group take one step."""
        for name in list(self.world.apps):
            self.world.serve_step(name)
        for name in list(self.world.gangs):
            if name in self.world.gangs:
                self.world.group_step(name)

    def settle(self, wanted: int, *, rounds: int = 800) -> int:
        """Step everything until nothing changes, while KEDA wants ``wanted`` groups. :returns: the number of rounds.

        :raises AssertionError: if the world does not settle as wanted.
        """
        world = self.world
        calm_rounds = 0
        for number in range(rounds):
            world.replicas = max(wanted, 1 if world.store().live else 0)
            planned = self.operator()
            self.kuberay()
            self.kubelets()
            self.ray()
            world.now += min(planned.requeue_after_s, 5.0)
            calm_rounds = calm_rounds + 1 if not planned.actions else 0
            if calm_rounds >= 4 and self.at_rest(wanted) is None:
                return number
        last = plan(self.observe())
        raise AssertionError(f"{self.at_rest(wanted)}; {last.actions}; {self.refused[-3:]}; {world.status}")

    def at_rest(self, wanted: int) -> str | None:
        """What differs from the settled state; ``None`` if nothing does."""
        world, view = self.world, self.world.view()
        suspended = world.idle == "cluster" and not wanted
        if len(view.clusters) != 1:
            return f"{len(view.clusters)} RayClusters"
        (cluster,) = view.clusters
        workers = [pod for pod in view.pods if not pod.head]
        gangs = [gang for gang in world.alive() if gang.state is not None]
        homes = [{world.pods[host].replica for host in gang.hosts} for gang in gangs]
        compared: dict[str, tuple[Any, Any]] = {
            "status.replicas": (world.status.get("replicas"), wanted),
            "replicas": (cluster.replicas, wanted),
            "workers": (len(workers), wanted * world.hosts),
            "groups": (len(gangs), wanted),
            "mixed groups": (sum(len(home) > 1 for home in homes), 0),
            "marks": (len(world.drains), 0),
            "image": (world._image(cluster.name), str(world.image)),
            "suspended": (cluster.suspended, suspended),
            "phase": (world.status.get("phase"), "Ready" if wanted else "Suspended" if suspended else "Zero"),
            "pool": (cluster.name.split("-")[0], POOL),
        }
        if not suspended:
            app = world.apps.get(cluster.name)
            compared["Serve's target"] = (app.target if app is not None else -1, wanted * world.ranks)
        differences = [
            f"{name}: {is_} instead of {should}" for name, (is_, should) in compared.items() if is_ != should
        ]
        return "; ".join(differences) or None
