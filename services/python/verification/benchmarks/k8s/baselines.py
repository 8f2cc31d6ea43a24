"""What Kubernetes, Ray and the model take by themselves: the worker's own pod template, without Daybreak."""

from __future__ import annotations

import copy
import time
from typing import Any

from testkit.kubernetes.deployment import Deployment
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

NAME = "baseline"
# Ray's own command, not the quicker one that stands before it in the image's PATH.
_JOIN = '/opt/daybreak/bin/ray start --address="$RAY_ADDRESS" --num-cpus=0 >/dev/null'
_LOAD = """python -c '
from daybreak_server.workloads.base import Group
from daybreak_server.workloads.video.pipeline.workload import VideoWorkload
one = VideoWorkload(); one.load(Group()); one.warm_up()'"""
_DONE = "echo DONE; sleep 600"
JOIN, LOAD = f"{_JOIN} && {_DONE}", f"{_LOAD} && {_DONE}"
WHOLE = f"{_JOIN} && {_LOAD} && {_DONE}"


class Baselines:
    """Seconds, one for each time that it was measured."""

    def __init__(self, deployment: Deployment) -> None:
        self._house = deployment
        self._templates: dict[str, dict[str, Any]] = {}
        self.start_s: list[float] = []
        self.join_s: list[float] = []
        self.load_s: list[float] = []
        self.whole_s: list[float] = []

    def see(self, pool: str) -> None:
        """Keep what a worker of this pool is made of; one is there now."""
        (worker, *_) = self._house.kube.workers(pool)
        self._templates[pool] = self._house.kube.api.sanitize_for_serialization(worker)

    def join(self, pool: str) -> None:
        """A pod, and Ray in it that joins the pool's head."""
        start, took = self._run(self._templates[pool], JOIN)
        self.start_s.append(start)
        self.join_s.append(took)

    def load(self, pool: str) -> None:
        """The model, in a pod of the pool."""
        self.load_s.append(self._run(self._templates[pool], LOAD)[1])

    def whole(self, pool: str, *, hosts: int) -> None:
        """So many pods at once, Ray in each that joins the pool's head, and then the model in each."""
        self.whole_s.append(sum(self._run(self._templates[pool], WHOLE, pods=hosts)))

    def _run(self, template: dict[str, Any], script: str, *, pods: int = 1) -> tuple[float, float]:
        """Seconds until the pods run, and from then until their scripts are done."""
        core, namespace = self._house.kube.core, self._house.kube.namespace
        named = [f"{NAME}-{number}" for number in range(pods)]
        began = time.monotonic()
        for name in named:
            core.create_namespaced_pod(namespace, _bare(name, template, script))

        def runs() -> bool:
            return all(core.read_namespaced_pod(name, namespace).status.phase == "Running" for name in named)

        def done() -> bool:
            return all("DONE" in core.read_namespaced_pod_log(name, namespace) for name in named)

        wait_until(runs, timeout_s=120, what="a bare pod", pause_s=0.1)
        running = time.monotonic()
        wait_until(done, timeout_s=240, what=f"{script[:40]}…", pause_s=0.1)
        ended = time.monotonic()
        for name in named:
            core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
        wait_until(lambda: not self._there(), timeout_s=60, what="the end of a bare pod")
        log(
            f"  baseline: {running - began:.1f} s to run, {ended - running:.1f} s for {script.split(maxsplit=1)[0]}"
        )
        return running - began, ended - running

    def _there(self) -> bool:
        return any(pod.metadata.name.startswith(f"{NAME}-") for pod in self._house.kube.pods())


def _bare(name: str, template: dict[str, Any], script: str) -> dict[str, Any]:
    spec = copy.deepcopy(template["spec"])
    for absent in ("initContainers", "nodeName", "hostname", "subdomain"):
        spec.pop(absent, None)
    container = spec["containers"][0]
    for absent in ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "args"):
        container.pop(absent, None)
    container["command"] = ["/bin/bash", "-c", script]
    spec.update(containers=[container], restartPolicy="Never")
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
