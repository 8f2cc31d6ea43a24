"""Measures how long a pod's start, Ray's join and the loading of the model take without the operator and Ray Serve.

The baselines run in bare pods with the spec of a group's pod, without its init containers and probes.
"""

from __future__ import annotations

import copy
import time
from typing import Any

from testkit.kubernetes.deployment import Deployment
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

NAME = "baseline"
# Ray's own command. The `ray` that comes first on the image's PATH is Daybreak's faster wrapper.
_JOIN = '/opt/daybreak/bin/ray start --address="$RAY_ADDRESS" --num-cpus=0 >/dev/null'
_LOAD = """python -c '
from daybreak_server.workloads.base import Group
from daybreak_server.workloads.video.pipeline.workload import VideoWorkload
workload = VideoWorkload(); workload.load(Group()); workload.warm_up()'"""
_DONE = "echo DONE; sleep 600"
JOIN, LOAD = f"{_JOIN} && {_DONE}", f"{_LOAD} && {_DONE}"
WHOLE = f"{_JOIN} && {_LOAD} && {_DONE}"


class Baselines:
    """Runs the baselines and keeps the seconds that each took."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._templates: dict[str, dict[str, Any]] = {}
        self.start_s: list[float] = []
        self.join_s: list[float] = []
        self.load_s: list[float] = []
        self.whole_s: list[float] = []

    def capture(self, pool: str) -> None:
        """Remember the spec of one pod of the pool's group. The group must be running now."""
        (pod, *_) = self._deployment.kube.group_pods(pool)
        self._templates[pool] = self._deployment.kube.api.sanitize_for_serialization(pod)

    def join(self, pool: str) -> None:
        """Start a pod in which Ray joins the pool's head."""
        start_s, join_s = self._run(self._templates[pool], JOIN)
        self.start_s.append(start_s)
        self.join_s.append(join_s)

    def load(self, pool: str) -> None:
        """Start a pod that loads the model and warms it up."""
        self.load_s.append(self._run(self._templates[pool], LOAD)[1])

    def whole(self, pool: str, *, hosts: int) -> None:
        """Start ``hosts`` pods at once; in each, Ray joins the pool's head. Then the model loads and is warmed up."""
        self.whole_s.append(sum(self._run(self._templates[pool], WHOLE, pods=hosts)))

    def _run(self, template: dict[str, Any], script: str, *, pods: int = 1) -> tuple[float, float]:
        """Seconds until the pods run, and from then until their scripts have printed that they are done."""
        core, namespace = self._deployment.kube.core, self._deployment.kube.namespace
        names = [f"{NAME}-{number}" for number in range(pods)]
        began = time.monotonic()
        for name in names:
            core.create_namespaced_pod(namespace, _bare(name, template, script))

        def runs() -> bool:
            return all(core.read_namespaced_pod(name, namespace).status.phase == "Running" for name in names)

        def scripts_ended() -> bool:
            return all("DONE" in core.read_namespaced_pod_log(name, namespace) for name in names)

        wait_until(runs, timeout_s=120, what="the baseline pods to run", pause_s=0.1)
        running = time.monotonic()
        wait_until(scripts_ended, timeout_s=240, what=f"{script[:40]}…", pause_s=0.1)
        ended = time.monotonic()
        for name in names:
            core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
        wait_until(lambda: not self._exists(), timeout_s=60, what="the baseline pods to be deleted")
        log(
            f"  baseline: {running - began:.1f} s to run, {ended - running:.1f} s for {script.split(maxsplit=1)[0]}"
        )
        return running - began, ended - running

    def _exists(self) -> bool:
        return any(pod.metadata.name.startswith(f"{NAME}-") for pod in self._deployment.kube.pods())


def _bare(name: str, template: dict[str, Any], script: str) -> dict[str, Any]:
    spec = copy.deepcopy(template["spec"])
    for field in ("initContainers", "nodeName", "hostname", "subdomain"):
        spec.pop(field, None)
    container = spec["containers"][0]
    for field in ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "args"):
        container.pop(field, None)
    container["command"] = ["/bin/bash", "-c", script]
    spec.update(containers=[container], restartPolicy="Never")
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
