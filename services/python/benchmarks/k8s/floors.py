"""What Kubernetes, Ray and the model take by themselves: the worker's own pod template, without Daybreak."""

from __future__ import annotations

import copy
import time
from typing import Any

from e2e.house import House
from e2e.telling import say
from e2e.waiting import wait_until

NAME = "floor"
# Ray's own command, not the quicker one that stands before it in the image's PATH.
JOIN = '/opt/daybreak/bin/ray start --address="$RAY_ADDRESS" --num-cpus=0 >/dev/null && echo DONE; sleep 600'
LOAD = """python -c '
from daybreak_server.workloads.base import Group
from daybreak_server.workloads.video.workload import VideoWorkload
one = VideoWorkload(); one.load(Group()); one.warm_up()' && echo DONE; sleep 600"""


class Floors:
    """Seconds, one for each time that it was measured."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._templates: dict[str, dict[str, Any]] = {}
        self.start_s: list[float] = []
        self.join_s: list[float] = []
        self.load_s: list[float] = []

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

    def _run(self, template: dict[str, Any], script: str) -> tuple[float, float]:
        """Seconds until a pod runs, and from then until its script is done."""
        core, namespace = self._house.kube.core, self._house.kube.namespace
        began = time.monotonic()
        core.create_namespaced_pod(namespace, _bare(template, script))

        def runs() -> bool:
            return bool(core.read_namespaced_pod(NAME, namespace).status.phase == "Running")

        def done() -> bool:
            return "DONE" in core.read_namespaced_pod_log(NAME, namespace)

        wait_until(runs, timeout_s=120, what="a bare pod", pause_s=0.1)
        running = time.monotonic()
        wait_until(done, timeout_s=240, what=f"{script[:40]}…", pause_s=0.1)
        ended = time.monotonic()
        core.delete_namespaced_pod(NAME, namespace, grace_period_seconds=0)
        wait_until(lambda: not self._there(), timeout_s=60, what="the end of a bare pod")
        say(
            f"  floor: {running - began:.1f} s to run, {ended - running:.1f} s for {script.split(maxsplit=1)[0]}"
        )
        return running - began, ended - running

    def _there(self) -> bool:
        return any(pod.metadata.name == NAME for pod in self._house.kube.pods())


def _bare(template: dict[str, Any], script: str) -> dict[str, Any]:
    spec = copy.deepcopy(template["spec"])
    for name in ("initContainers", "nodeName", "hostname", "subdomain"):
        spec.pop(name, None)
    container = spec["containers"][0]
    for name in ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "args"):
        container.pop(name, None)
    container["command"] = ["/bin/bash", "-c", script]
    spec.update(containers=[container], restartPolicy="Never")
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME}, "spec": spec}
